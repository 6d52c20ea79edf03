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
for _, id in ipairs(call('ZRANGEBYSCORE', RETRYING, '(' .. now + backoff_max_ms, '+inf', 'LIMIT', 0, limit)) do
  gather('ZADD', RETRYING, now + backoff_max_ms, id)
end
flush()
return promoted
