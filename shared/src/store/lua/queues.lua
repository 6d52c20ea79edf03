-- The queues of a partition: how many ids wait in each, since when the oldest, and whether it is paused.
-- KEYS: the partition. ARGV: now, the queue, or empty for all, ids to examine, over all queues (0: none), lists to
--   visit, the last queue of the part before, or empty
-- Returns: {server time ms, the last queue of this part if others follow, or '', {queue, ids in its lists, since when
--   the oldest of the queued jobs examined waits, ms, or '', paused 0|1, {ids examined, {kind that runs, queued jobs of
--   it among them, its permits in use}…}, kinds parked…}…}
local names = ARGV[2] ~= '' and { ARGV[2] } or look('SUNION', QUEUES, PAUSED) or {}
local scan, visits, after = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
-- So many ids at the end of each list are examined in any case, so that the oldest job of most queues is found.
local LEAST = scan > 0 and 10 or 0
table.sort(names)

-- The kind that a queued job runs, and since when it waits, ms; nil for an id whose job is gone, has ended or waits for
-- its time.
local function runs(id)
  local job = look('HMGET', job_key(id), 'kind', 'state', 'items_total', 'then', 'created_at', 'scheduled_at',
    'updated_at')
  if not job or not job[1] or job[2] then return nil end
  -- It was due at its time, or was queued again by the last change of its record.
  local since = math.max(tonumber(job[5] or 0) or 0, tonumber(job[6] or 0) or 0, tonumber(job[7] or 0) or 0)
  return job[3] and job[4] or job[1], since
end

local function queue_of(queue)
  local own = queue_key(queue)
  local kinds = look('SMEMBERS', parked_index(queue)) or {}
  local lists = { own .. ':high', own, own .. ':low', own .. ':suspect' }
  for _, kind in ipairs(kinds) do lists[#lists + 1] = parked_key(queue, kind) end
  visits = visits - #lists
  local depth, oldest, examined, queued, seen = 0, math.huge, 0, {}, {}
  for _, list in ipairs(lists) do
    local size = look('LLEN', list) or 0
    depth = depth + size
    local most = math.max(scan, LEAST)
    local ids = size > 0 and most > 0 and look('LRANGE', list, -most, -1) or {}
    local records = #ids > 0 and look('HMGET', RUNNING, unpack(ids)) or {}
    for i, id in ipairs(ids) do
      scan, examined = scan - 1, examined + 1
      local kind, since = nil, nil
      if not seen[id] and not records[i] then kind, since = runs(id) end
      if kind then queued[kind], oldest = (queued[kind] or 0) + 1, math.min(oldest, since) end
      seen[id] = true
    end
  end
  local demanded = { examined }
  for kind, count in pairs(queued) do
    demanded[#demanded + 1] = { kind, count, look('SCARD', permits_key(kind)) or 0 }
  end
  oldest = oldest < math.huge and string.format('%.0f', oldest) or ''
  return { queue, depth, oldest, look('SISMEMBER', PAUSED, queue) or 0, demanded, unpack(kinds) }
end

local replies, last = { now, '' }, nil
for _, queue in ipairs(names) do
  if queue > after then
    if visits <= 0 then
      replies[2] = last
      break
    end
    replies[#replies + 1], last = queue_of(queue), queue
  end
end
return replies
