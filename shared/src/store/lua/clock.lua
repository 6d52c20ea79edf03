-- Included by renew, sweep, reclaim, recover, remove and cancel: Redis's clock, as observed by the workers.
--
-- `clock` holds: stamp (ms, the last renewal or sweep of any worker), lease:<ms> for each length of lease in use (when
-- it was last used), lease_max_ms (the longest of them), and after a gap grace_from (the last stamp before it),
-- grace_began, grace_until, grace_ms (the longest lease that it endangers), and skipped_ms with skipped_until; after a
-- step back ahead_until (the last time before it). A gap
-- means that Redis or all workers were away, or that the clock was set. Until grace_until only leases that had expired
-- by grace_from are reclaimed, since all other holders may be alive.

-- A gap of less than this does not add to the time that clients have missed, ms.
local SKIP_MIN = 60000

-- The fields of `clock` as numbers, and the lengths of lease: {length = when it was last used}.
local function read_clock(lease_ms)
  local fields, used, flat = {}, {}, call('HGETALL', CLOCK)
  for i = 1, #flat, 2 do
    local length = tonumber(string.match(flat[i], '^lease:(%d+)$'))
    local of = length and used or fields
    of[length or flat[i]] = tonumber(flat[i + 1])
  end
  -- 0.1 kept the longest only.
  if not next(used) and fields.lease_max_ms then used[fields.lease_max_ms] = fields.lease_max_at or now end
  used[lease_ms] = used[lease_ms] or fields.stamp or now
  return fields, used
end

-- Drops the lengths that nobody uses. Returns the longest, and the longest that a silence of this length endangers.
local function longest_of(used, last, silence, all)
  local longest, endangered, dropped = 0, 0, {}
  for length, at in pairs(used) do
    if last - at > 2 * length then
      dropped[#dropped + 1] = 'lease:' .. length
    else
      longest = math.max(longest, length)
      if all or silence > length / 3 then endangered = math.max(endangered, length) end
    end
  end
  for _, field in ipairs(dropped) do used[tonumber(string.sub(field, 7))] = nil end
  return longest, endangered, dropped
end

local function stamp(lease_ms)
  local v, used = read_clock(lease_ms)
  local last = v.stamp or now
  -- A step back of up to a second is clock discipline, not a jump.
  local silence, stepped_back = now - last, last - now > 1000
  local longest, endangered, dropped = longest_of(used, last, silence, stepped_back)
  local fields = { 'stamp', now, 'lease:' .. lease_ms, now }
  local function set(name, value) fields[#fields + 1], fields[#fields + 2] = name, value end
  -- guard: gap
  if endangered > 0 then
    local from, began, grace_ms, ends = math.min(last, now), now, endangered, now + endangered
    -- guard: oldest (a gap that begins within a grace does not hide the one before it, for ten leases at most: a lease too
    -- short for this machine's hiccups must not keep everything from being reclaimed)
    local chained = math.max(endangered, v.grace_ms or longest)
    if last < (v.grace_until or 0) and now - (v.grace_began or 0) <= 10 * chained then
      from, began, grace_ms = math.min(from, v.grace_from or from), v.grace_began or now, chained
      ends = math.max(ends, math.min(v.grace_until, now + longest))
    end
    set('grace_from', from)
    set('grace_began', began)
    set('grace_until', ends)
    set('grace_ms', grace_ms)
    -- A length of lease does not come out of use while its workers cannot renew.
    for length, at in pairs(used) do
      if length ~= lease_ms and (stepped_back or silence > length / 3) then set('lease:' .. length, at + silence) end
    end
    -- What an earlier gap has skipped counts on.
    local skipped_until = v.skipped_until or (v.grace_until or 0) + OPEN_MS
    local counts = v.skipped_ms and v.skipped_ms > 0 and last < skipped_until
    if not counts or math.abs(silence) >= SKIP_MIN then
      set('skipped_ms', math.max(silence + (counts and v.skipped_ms or 0), 0))
      set('skipped_until', now + longest + OPEN_MS)
    end
  end
  -- Jobs may have been delayed by a clock that was ahead: promote looks at them.
  if stepped_back then
    set('ahead_until', math.max(last, v.ahead_until or 0))
    dropped[#dropped + 1], dropped[#dropped + 2] = 'ahead_scheduled', 'ahead_retrying'
  end
  if longest ~= v.lease_max_ms then set('lease_max_ms', longest) end
  call('HSET', CLOCK, unpack(fields))
  if #dropped > 0 then call('HDEL', CLOCK, unpack(dropped)) end
end

-- The time, ms, by which a lease must have expired to be reclaimed now; and the longest lease in use.
local function cutoff()
  local v = call('HMGET', CLOCK, 'grace_from', 'grace_until', 'lease_max_ms')
  local from, until_ms, lease_max = tonumber(v[1]), tonumber(v[2]), tonumber(v[3]) or 0
  -- guard: grace
  if from and until_ms and now < until_ms then return math.min(now, from), lease_max end
  return now, lease_max
end

-- The time, ms, minus the length of the last gaps, in which no client could send the next part of a batch or look at a
-- job that has ended.
local function unskipped()
  local v = call('HMGET', CLOCK, 'skipped_until', 'skipped_ms', 'grace_until')
  local until_ms, skipped = tonumber(v[1]) or (tonumber(v[3]) or 0) + OPEN_MS, tonumber(v[2])
  if skipped and now < until_ms then return now - skipped end
  return now
end
