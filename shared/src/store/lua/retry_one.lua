-- Included by retry and cascade.
local function requeue(job)
  revive_job(job)
  note(job.id, 'retry', {})
  push(job)
  tell('queued', job.id)
  return 'queued'
end

-- A final parent waits again until its failed and cancelled items have been requeued and have ended.
local function retry_parent(job)
  local v = call('HMGET', job.key, 'items_failed', 'items_cancelled')
  local open = (tonumber(v[1]) or 0) + (tonumber(v[2]) or 0)
  if job.state == 'completed' and open == 0 then return 'refused' end
  revive_job(job)
  redis.call('HSET', job.key, 'state', 'waiting')
  call('ZADD', WAITING, now, job.id)
  if open > 0 then call('HSET', CASCADES, job.id, 'retry 0 ' .. now) end
  note(job.id, 'retry', {})
  tell('waiting', job.id)
  parents[job.id] = true
  return 'waiting'
end

local function retry_one(id)
  local job = read(id)
  if not job then return 'missing' end
  local final = job.state == 'failed' or job.state == 'cancelled' or (job.items_total and job.state == 'completed')
  -- guard: ended
  if not final then return 'refused' end
  if job.lost then return 'lost' end
  if call('HEXISTS', REMOVALS, id) + call('HEXISTS', CASCADES, id) > 0 then return 'missing' end -- it is being removed
  if job.items_total then return retry_parent(job) end
  -- guard: parent
  if job.parent then
    if call('SISMEMBER', CANCELLING, job.parent) == 1 then return 'flagged' end
    if call('HGET', job_key(job.parent), 'state') ~= 'waiting' then return 'parent' end
  end
  return requeue(job)
end
