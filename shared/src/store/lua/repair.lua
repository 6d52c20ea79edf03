-- Puts one job's id where its record says it belongs, and nowhere else; whatever stands for a missing job is removed.
-- KEYS: the partition. ARGV: now, id, listed (0: the caller found it in no list), kind under whose index it was found
-- Returns: repaired | missing
local id, listed, indexed = ARGV[2], ARGV[3] == '1', ARGV[4]
local PLACES = {
  scheduled = SCHEDULED, retrying = RETRYING, waiting = WAITING, completed = P .. ':completed', failed = P .. ':failed',
  cancelled = P .. ':cancelled',
}
local job, record = read(id), running(id)
local state = job and job.state
local final = state == 'completed' or state == 'failed' or state == 'cancelled'

for name, place in pairs(PLACES) do
  if name ~= state then call('ZREM', place, id) end
end
if not job or state then
  if record then
    call('LREM', claimed_key(record.worker), 0, id)
    if record.permit then call('SREM', permits_key(record.permit), id) end
  end
  call('HDEL', RUNNING, id)
  call('ZREM', LEASES, id)
end
if state ~= 'waiting' then call('ZREM', OPEN, id) end
if state ~= 'waiting' and (not record or state) then call('SREM', CANCELLING, id) end
if not job then
  call('ZREM', EXPIRY, id)
  if indexed ~= '' then call('ZREM', kind_key(indexed), id) end
  return 'missing'
end

local v = redis.call('HMGET', job.key, 'created_at', 'scheduled_at', 'finished_at')
local created = tonumber(v[1] or now)
if state then
  local due = { scheduled = tonumber(v[2] or now), retrying = now, waiting = created }
  call('ZADD', PLACES[state], 'NX', due[state] or tonumber(v[3] or now), id)
elseif record then
  -- Its holder, if it lives, has one lease to say so.
  local lease_max = tonumber(call('HGET', CLOCK, 'lease_max_ms') or 0)
  call('ZADD', LEASES, 'NX', now + lease_max, id)
  if not call('LPOS', claimed_key(record.worker), id) then call('LPUSH', claimed_key(record.worker), id) end
  if record.permit then call('SADD', permits_key(record.permit), id) end
else
  call('ZREM', LEASES, id)
  if not listed then push(job) end
end
if not job.parent then
  call('ZADD', kind_key(job.kind), 'NX', created, id)
  if not final then
    call('ZREM', EXPIRY, id)
  elseif call('HEXISTS', CASCADES, id) == 0 then
    call('ZADD', EXPIRY, 'NX', now + retention(job.kind, state), id)
  end
end
finish()
return 'repaired'
