-- The queues of a partition: how many ids wait in each, since when the oldest, and whether it is paused.
-- KEYS: the partition. ARGV: now, the queue, or empty for all, ids to examine, over all queues
-- Returns: {server time ms, {queue, ids in its lists, created_at of the oldest or '', paused 0|1, {ids examined,
--   {kind that runs, queued jobs of it among them, its permits in use}…}, kinds parked…}…}
local names = ARGV[2] ~= '' and { ARGV[2] } or look('SUNION', QUEUES, PAUSED) or {}
local scan = tonumber(ARGV[3])

-- The kind that a queued job runs; nil for an id whose job is gone, has ended, waits for its time or is running.
local function runs(id)
  local job = look('HMGET', job_key(id), 'kind', 'state', 'items_total', 'then')
  if not job or not job[1] or job[2] or (look('HEXISTS', RUNNING, id) or 0) == 1 then return nil end
  return job[3] and job[4] or job[1]
end

local replies = { now }
for _, queue in ipairs(names) do
  local own = queue_key(queue)
  local kinds = look('SMEMBERS', parked_index(queue)) or {}
  local lists = { own .. ':high', own, own .. ':low', own .. ':suspect' }
  for _, kind in ipairs(kinds) do lists[#lists + 1] = parked_key(queue, kind) end
  local depth, oldest, examined, queued, seen = 0, '', 0, {}, {}
  for _, list in ipairs(lists) do
    depth = depth + (look('LLEN', list) or 0)
    local id = look('LINDEX', list, -1)
    local created = id and look('HGET', job_key(id), 'created_at')
    if tonumber(created or '') and (oldest == '' or tonumber(created) < tonumber(oldest)) then oldest = created end
    for _, next_id in ipairs(scan > 0 and look('LRANGE', list, -scan, -1) or {}) do
      scan, examined = scan - 1, examined + 1
      local kind = not seen[next_id] and runs(next_id)
      if kind then queued[kind] = (queued[kind] or 0) + 1 end
      seen[next_id] = true
    end
  end
  local demanded = { examined }
  for kind, count in pairs(queued) do
    demanded[#demanded + 1] = { kind, count, look('SCARD', permits_key(kind)) or 0 }
  end
  replies[#replies + 1] = { queue, depth, oldest, look('SISMEMBER', PAUSED, queue) or 0, demanded, unpack(kinds) }
end
return replies
