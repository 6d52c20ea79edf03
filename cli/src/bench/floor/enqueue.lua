-- The floor's enqueue: new jobs, each at most once, with an index by kind and creation.
-- ARGV: id, payload, …
-- Returns: how many jobs are new
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local keys, ids, created = {}, {}, {}
for i = 1, #ARGV, 2 do keys[#keys + 1] = 'fl:{0}:job:' .. ARGV[i] end
-- One question for all ids; only when some are known is each of them looked up.
local known = redis.call('EXISTS', unpack(keys)) > 0
for at, key in ipairs(keys) do
  if not known or redis.call('EXISTS', key) == 0 then
    local id = ARGV[2 * at - 1]
    redis.call('HSET', key, 'kind', 'noop', 'queue', 'default', 'created_at', now, 'max_attempts', '5', 'payload',
      ARGV[2 * at])
    ids[#ids + 1] = id
    created[#created + 1] = now
    created[#created + 1] = id
  end
end
if #ids > 0 then
  redis.call('LPUSH', 'fl:{0}:queue:default', unpack(ids))
  redis.call('ZADD', 'fl:{0}:kind:noop', unpack(created))
  redis.call('PUBLISH', 'fl:{0}:changes', 'queued ' .. table.concat(ids, ' '))
end
return #ids
