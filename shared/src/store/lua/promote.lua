-- Queues jobs that have become due, and shortens a back-off that is longer than the maximum (the clock was set back).
-- Transition: promote
-- KEYS: the partition. ARGV: now, limit, backoff_max_ms
-- Returns: how many were queued
local limit, backoff_max_ms = tonumber(ARGV[2]), tonumber(ARGV[3])

local promoted = 0
for _, place in ipairs({ { SCHEDULED, 'scheduled' }, { RETRYING, 'retrying' } }) do
  for _, id in ipairs(call('ZRANGEBYSCORE', place[1], '-inf', now, 'LIMIT', 0, limit)) do
    gather('ZREM', place[1], id)
    local job = read(id)
    -- guard: due
    if job and job.state == place[2] then
      redis.call('HDEL', job.key, 'state')
      -- A retry waits in its queue from now on, not from its failure.
      if job.state == 'retrying' then redis.call('HSET', job.key, 'updated_at', now) end
      push(job)
      tell('queued', id)
      promoted = promoted + 1
    end
  end
end
-- A delay that was given while the clock was ahead, and a back-off that began then, count from the step back. One walk
-- over the delayed jobs, in steps, by their due times; `ahead_…` is where it continues.
local function cut_delays()
  local until_ms = tonumber(call('HGET', CLOCK, 'ahead_until') or nil)
  if not until_ms then return end
  local left = false
  for place, key in pairs({ scheduled = SCHEDULED, retrying = RETRYING }) do
    local from = tonumber(call('HGET', CLOCK, 'ahead_' .. place) or nil) or now
    local page = {}
    if now < until_ms then
      page = call('ZRANGEBYSCORE', key, '(' .. from, '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
    end
    for i = 1, #page, 2 do
      local id, due = page[i], tonumber(page[i + 1])
      local v = look('HMGET', job_key(id), 'created_at', 'updated_at', 'delay_ms') or {}
      local began = tonumber(v[place == 'scheduled' and 1 or 2] or nil) or 0
      local delay = due - began
      -- A time that a client named is kept.
      if place == 'scheduled' then delay = tonumber(v[3] or nil) end
      if began > now + 1000 and delay and now + delay < due then
        gather('ZADD', key, now + delay, id)
        if place == 'scheduled' then redis.call('HSET', job_key(id), 'scheduled_at', now + delay) end
      end
      from = due
    end
    if #page == 2 * limit then
      left = true
      call('HSET', CLOCK, 'ahead_' .. place, from)
    end
  end
  if not left then call('HDEL', CLOCK, 'ahead_until', 'ahead_scheduled', 'ahead_retrying') end
end

cut_delays()
for _, id in ipairs(call('ZRANGEBYSCORE', RETRYING, '(' .. now + backoff_max_ms, '+inf', 'LIMIT', 0, limit)) do
  gather('ZADD', RETRYING, now + backoff_max_ms, id)
end
flush()
return promoted
