-- Writes or removes a schedule, if nobody has changed it since it was read, and no tick has been done.
-- KEYS: the partition. ARGV: now, name, revision and next (as they were read; empty: there was none), most (how many
--   schedules there may be here), and to write it: next (ms; empty: it has no tick to come), and names and values of
--   its fields
-- Returns: written | removed | changed | full
local name, revision, next = ARGV[2], ARGV[3], ARGV[4]
local key = schedule_key(name)
local found = call('HMGET', key, 'revision', 'next')
if (found[1] or '') ~= revision or (found[2] or '') ~= next then return 'changed' end
if #ARGV == 5 then
  call('DEL', key)
  call('ZREM', SCHEDULES, name)
  return 'removed'
end
if not found[1] and call('ZCARD', SCHEDULES) >= tonumber(ARGV[5]) then return 'full' end
local own = string.format('%.0f', math.max(now_us, (tonumber(found[1]) or 0) + 1))
redis.call('HSET', key, 'revision', own, 'next', ARGV[6], unpack(ARGV, 7))
call('ZADD', SCHEDULES, ARGV[6] ~= '' and ARGV[6] or '+inf', name)
return 'written'
