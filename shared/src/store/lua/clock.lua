-- Included by renew, sweep, reclaim, recover and cancel: Redis's clock, as observed by the workers.
--
-- `clock` holds: stamp (ms, the last renewal or sweep of any worker), lease_max_ms (the longest lease in use) and
-- lease_max_at (when it was last used), and after a gap grace_from (the last stamp before it), grace_began, grace_until
-- and skipped_ms. A gap means that Redis or all workers were away, or that the clock was set. Until grace_until only
-- leases that had expired by grace_from are reclaimed, since all other holders may be alive.

-- The longest lease in use, and the fields to store when it has changed.
local function longest(lease_ms, known, used_at)
  if lease_ms >= known then
    if lease_ms > known or now - used_at > known / 4 then return lease_ms, { 'lease_max_ms', lease_ms, 'lease_max_at', now } end
  elseif now - used_at > 2 * known then
    return lease_ms, { 'lease_max_ms', lease_ms, 'lease_max_at', now }
  end
  return known, {}
end

local function stamp(lease_ms, gap_max_ms)
  local v = call('HMGET', CLOCK, 'stamp', 'lease_max_ms', 'lease_max_at', 'grace_from', 'grace_until', 'grace_began')
  for i = 1, 6 do v[i] = tonumber(v[i]) end
  local last = v[1]
  local lease_max, fields = longest(lease_ms, v[2] or 0, v[3] or 0)
  -- guard: gap (a step back of up to a second is clock discipline, not a jump)
  if last and (now - last > gap_max_ms or last - now > 1000) then
    local from, began = math.min(last, now), now
    -- guard: oldest (a gap that begins within a grace does not hide the one before it, for ten leases at most: a lease too
    -- short for this machine's hiccups must not keep everything from being reclaimed)
    if last < (v[5] or 0) and now - (v[6] or 0) <= 10 * lease_max then
      from, began = math.min(from, v[4] or from), v[6] or now
    end
    for _, field in ipairs({ 'grace_from', from, 'grace_began', began, 'grace_until', now + lease_max, 'skipped_ms',
      math.max(now - last, 0) }) do
      fields[#fields + 1] = field
    end
  end
  call('HSET', CLOCK, 'stamp', now, unpack(fields))
  return lease_max
end

-- The time, ms, by which a lease must have expired to be reclaimed now; and the longest lease in use.
local function cutoff()
  local v = call('HMGET', CLOCK, 'grace_from', 'grace_until', 'lease_max_ms')
  local from, until_ms, lease_max = tonumber(v[1]), tonumber(v[2]), tonumber(v[3]) or 0
  -- guard: grace
  if from and until_ms and now < until_ms then return math.min(now, from), lease_max end
  return now, lease_max
end

-- The time, ms, minus the length of the last gap, in which no client could send the next part of a batch.
local function unskipped()
  local v = call('HMGET', CLOCK, 'grace_until', 'skipped_ms')
  local until_ms, skipped = tonumber(v[1]), tonumber(v[2])
  if until_ms and skipped and now < until_ms + OPEN_MS then return now - skipped end
  return now
end
