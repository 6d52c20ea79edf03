-- Renews a worker's registration and the leases of its running handlers. Returns cancels, lost leases, and
-- its claimed list for the audit.
-- Transition: renew
-- KEYS: the partition. ARGV: now, worker, lease_ms, info (JSON), seen (the highest token this worker has seen), n,
--   then id, token of each
-- Returns: {server time ms, {renewed|cancel|stale|missing}…, ids of the claimed list}
local worker, lease_ms, n = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[6])
stamp(lease_ms)

local answers, ids = {}, {}
for i = 1, n do ids[i] = ARGV[5 + 2 * i] end
local records = n > 0 and call('HMGET', RUNNING, unpack(ids))
local flags = n > 0 and call('EXISTS', CANCELLING) == 1 and call('SMISMEMBER', CANCELLING, unpack(ids))
for i, id in ipairs(ids) do
  local record = record_of(records[i])
  -- guard: holder
  if record and record.token == ARGV[6 + 2 * i] and record.worker == worker then
    gather('ZADD', LEASES, now + lease_ms, id)
    answers[i] = flags and flags[i] == 1 and 'cancel' or 'renewed'
  else
    answers[i] = redis.call('EXISTS', job_key(id)) == 1 and 'stale' or 'missing'
  end
end
-- guard: seen (the counter and the clock may be behind it)
if token_of(ARGV[5]) > last_token() then redis.call('SET', TOKENS, ARGV[5]) end
call('ZADD', WORKERS, now, worker)
call('HSET', worker_key(worker), 'info', ARGV[4], 'seen_at', now)
flush()

local claimed = {}
for _, id in ipairs(call('LRANGE', claimed_key(worker), 0, CLAIMED_MAX - 1)) do
  if #id <= 64 and string.find(id, '^[%w_-]+$') then
    claimed[#claimed + 1] = id
  else
    -- Reserved by a pop, but an audit cannot name it.
    call('LREM', claimed_key(worker), 1, id)
  end
end
return { now, answers, claimed }
