-- Included by cancel and cascade. A parent whose items are to be cancelled is answered with their number:
-- `begun <items>`.
local function cancel_one(id)
  local job = read(id)
  if not job then return 'missing' end
  local record = running(id)
  if record then
    if call('SADD', CANCELLING, id) == 1 then note_run(job, record, 'cancel', {}) end
    redis.pcall('PUBLISH', HINTS, 'cancel ' .. record.worker .. ' ' .. id .. ' ' .. record.token)
    tell('cancelling', id)
    return 'requested'
  end
  -- guard: living
  if job.state == 'completed' or job.state == 'failed' or job.state == 'cancelled' then return job.state end
  if job.state == 'waiting' then
    if call('SADD', CANCELLING, id) == 1 or call('HEXISTS', CASCADES, id) == 0 then
      -- guard: sealing
      redis.call('HSET', job.key, 'sealed', 1)
      call('ZREM', OPEN, id)
      call('HSET', CASCADES, id, 'cancel 0 ' .. now)
      note(id, 'cancel', {})
      tell('cancelling', id)
    end
    return 'begun ' .. (job.items_total or 0)
  end
  if job.state == 'scheduled' then call('ZREM', SCHEDULED, id) end
  if job.state == 'retrying' then call('ZREM', RETRYING, id) end
  -- The id of a queued job stays in its list; the claim drops it.
  note(id, 'cancel', {})
  end_job(job, 'cancelled')
  return 'cancelled'
end
