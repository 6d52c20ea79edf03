-- Writes or removes a schedule, if nobody has changed it since it was read.
-- KEYS: the partition. ARGV: now, name, revision (as it was read; empty: there was none), most (how many schedules
--   there may be here), and to write it: next (ms; empty: it has no tick to come), and names and values of its fields
-- Returns: written | removed | changed | full
local name, revision = ARGV[2], ARGV[3]
local key = schedule_key(name)
local found = call('HGET', key, 'revision') or ''
if found ~= revision then return 'changed' end
if #ARGV == 4 then
  call('DEL', key)
  call('ZREM', SCHEDULES, name)
  return 'removed'
end
if found == '' and call('ZCARD', SCHEDULES) >= tonumber(ARGV[4]) then return 'full' end
local own = string.format('%.0f', math.max(now_us, (tonumber(found) or 0) + 1))
redis.call('HSET', key, 'revision', own, 'next', ARGV[5], unpack(ARGV, 6))
call('ZADD', SCHEDULES, ARGV[5] ~= '' and ARGV[5] or '+inf', name)
return 'written'
