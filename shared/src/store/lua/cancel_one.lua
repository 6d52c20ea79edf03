-- Included by cancel and cascade.

-- Removes the id of a cancelled job from its list, so that a list from which nobody claims does not grow. Only the ends
-- of a list are searched, and a bounded number of ids in a call: a claim or the sweep drops the id otherwise.
local UNLIST_MAX = 1000
local to_search = 50 * UNLIST_MAX
local function drop_id(job)
  local own = queue_key(job.queue)
  local lists = { own, parked_key(job.queue, job.runs) }
  if tonumber(job.crashes or 0) > 0 then
    lists[1] = own .. ':suspect'
  elseif job.priority ~= 'normal' then
    lists[3] = own .. ':' .. job.priority
  end
  for _, list in ipairs(lists) do
    local size = call('LLEN', list)
    for _, rank in ipairs(size > UNLIST_MAX and { -1, 1 } or size > 0 and { -1 } or {}) do
      if to_search <= 0 then return end
      to_search = to_search - math.min(size, UNLIST_MAX)
      if call('LPOS', list, job.id, 'RANK', rank, 'MAXLEN', UNLIST_MAX) then
        call('LREM', list, rank, job.id)
        return
      end
    end
  end
end

-- A parent whose items are to be cancelled is answered with their number: `begun <items>`. `quiet`: it is one of many
-- items, whose end is in its record, so it needs no history of its own.
local function cancel_one(id, quiet)
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
  if not job.state then drop_id(job) end
  if not quiet then note(id, 'cancel', {}) end
  end_job(job, 'cancelled')
  return 'cancelled'
end
