-- Included by renew, sweep, reclaim and recover: Redis's clock as those who watch it have seen it.
--
-- `clock` holds: stamp (ms, when anybody last renewed or swept), lease_max_ms (the longest lease in use), and after a gap
-- grace_from (the last stamp before it) and grace_until. Redis was away, or everybody was, or the clock was set: until
-- grace_until only leases that had run out by grace_from are reclaimed, since every other holder may be alive.
local function stamp(lease_ms, gap_max_ms)
  local v = call('HMGET', CLOCK, 'stamp', 'lease_max_ms', 'grace_from', 'grace_until')
  local last, lease_max = tonumber(v[1]), math.max(tonumber(v[2]) or 0, lease_ms)
  local fields = { 'stamp', now }
  if lease_max ~= tonumber(v[2]) then
    fields[3], fields[4] = 'lease_max_ms', lease_max
  end
  -- guard: gap (a step back of up to a second is clock discipline, not a jump)
  if last and (now - last > gap_max_ms or last - now > 1000) then
    local from = math.min(last, now)
    -- guard: oldest (a gap that begins within a grace does not hide the one before it)
    if last < (tonumber(v[4]) or 0) then from = math.min(from, tonumber(v[3]) or from) end
    fields[#fields + 1], fields[#fields + 2] = 'grace_from', from
    fields[#fields + 1], fields[#fields + 2] = 'grace_until', now + lease_max
  end
  call('HSET', CLOCK, unpack(fields))
  return lease_max
end

-- The time, ms, by which a lease must have run out to be reclaimed now; and the longest lease in use.
local function cutoff()
  local v = call('HMGET', CLOCK, 'grace_from', 'grace_until', 'lease_max_ms')
  local from, until_ms, lease_max = tonumber(v[1]), tonumber(v[2]), tonumber(v[3]) or 0
  -- guard: grace
  if from and until_ms and now < until_ms then return math.min(now, from), lease_max end
  return now, lease_max
end
