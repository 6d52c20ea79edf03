-- Drops the name and the pause of a queue in which no job waits, and the ids of ended jobs that are left in its lists.
-- KEYS: the partition. ARGV: now, queue, ids to examine, look | forget (look: nothing is changed)
-- Returns: {waiting} | {forgotten, it was known 0|1, it was paused 0|1}
local queue, scan, verb = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local own = queue_key(queue)
local lists = { own .. ':high', own, own .. ':low', own .. ':suspect' }
for _, kind in ipairs(call('SMEMBERS', parked_index(queue))) do lists[#lists + 1] = parked_key(queue, kind) end
for _, list in ipairs(lists) do
  local ids = call('LRANGE', list, 0, scan)
  scan = scan - #ids
  -- More than may be examined: it is not known that none waits.
  if scan < 0 then return { 'waiting' } end
  for _, id in ipairs(ids) do
    local job = call('HMGET', job_key(id), 'kind', 'state')
    if job[1] and not job[2] then return { 'waiting' } end
  end
end
local known, paused = call('SISMEMBER', QUEUES, queue), call('SISMEMBER', PAUSED, queue)
if verb == 'forget' then
  redis.call('DEL', parked_index(queue), unpack(lists))
  redis.call('SREM', QUEUES, queue)
  redis.call('SREM', PAUSED, queue)
end
return { 'forgotten', known, paused }
