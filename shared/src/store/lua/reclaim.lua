-- Reclaims running jobs whose lease has expired, unless a grace period protects them; a job that keeps losing its worker
-- fails.
-- Transition: reclaim
-- KEYS: the partition. ARGV: now, limit, max_crashes, error (JSON, without its time), lease_ms
-- Returns: {id, queued|failed|cancelled|dropped}…
local limit, max_crashes, crashed = tonumber(ARGV[2]), tonumber(ARGV[3]), cjson.decode(ARGV[4])
-- guard: stamped (it may be the first to be heard after an outage)
stamp(tonumber(ARGV[5]))
local by, lease_max = cutoff()

local function reclaim(id)
  local record, job = running(id), read(id)
  local flagged = call('SISMEMBER', CANCELLING, id) == 1
  stop_running(id, record)
  if not job or job.state then return 'dropped' end
  if not record then
    -- Its running record was lost (set aside), so no crash is counted.
    gather('SREM', permits_key(job.runs), id)
    push(job)
    return 'queued'
  end
  -- A late settle of the holder finds its token here and is answered `stale`.
  redis.call('HSET', job.key, 'token', record.token, 'worker', record.worker, 'started_at', record.started_at, 'settled',
    'stale', 'updated_at', now)
  note_run(job, record, 'reclaim', {})
  -- guard: flagged
  if flagged then
    end_job(job, 'cancelled')
    return 'cancelled'
  end
  job.crashes = call('HINCRBY', job.key, 'crashes', 1)
  local total = call('HINCRBY', job.key, 'crashes_total', 1)
  if job.crashes >= max_crashes or total >= 10 * max_crashes then
    crashed.at = now
    end_job(job, 'failed', false, 'error', cjson.encode(crashed))
    return 'failed'
  end
  push(job)
  tell('queued', id)
  return 'queued'
end

local replies = {}
-- guard: expired
for i, id in ipairs(call('ZRANGEBYSCORE', LEASES, '-inf', by, 'LIMIT', 0, limit)) do replies[i] = { id, reclaim(id) } end
-- guard: cut (a lease that lies further ahead than any may is left from before the clock was set back)
for _, id in ipairs(call('ZRANGEBYSCORE', LEASES, '(' .. now + lease_max, '+inf', 'LIMIT', 0, limit)) do
  if lease_max > 0 then gather('ZADD', LEASES, now + lease_max, id) end
end
finish()
return replies
