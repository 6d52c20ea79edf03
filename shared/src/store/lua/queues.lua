-- The queues of a partition: how many ids wait in each, since when the oldest, and whether it is paused.
-- KEYS: the partition. ARGV: now, the queue, or empty for all
-- Returns: {server time ms, {queue, ids in its lists, created_at of the oldest or '', paused 0|1, kinds parked…}…}
local names = ARGV[2] ~= '' and { ARGV[2] } or look('SUNION', QUEUES, PAUSED) or {}
local replies = { now }
for _, queue in ipairs(names) do
  local own = queue_key(queue)
  local kinds = look('SMEMBERS', parked_index(queue)) or {}
  local lists = { own .. ':high', own, own .. ':low', own .. ':suspect' }
  for _, kind in ipairs(kinds) do lists[#lists + 1] = parked_key(queue, kind) end
  local depth, oldest = 0, ''
  for _, list in ipairs(lists) do
    depth = depth + (look('LLEN', list) or 0)
    local id = look('LINDEX', list, -1)
    local created = id and look('HGET', job_key(id), 'created_at')
    if tonumber(created or '') and (oldest == '' or tonumber(created) < tonumber(oldest)) then oldest = created end
  end
  replies[#replies + 1] = { queue, depth, oldest, look('SISMEMBER', PAUSED, queue) or 0, unpack(kinds) }
end
return replies
