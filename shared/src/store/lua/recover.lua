-- Moves reservations back to the front of their queue: those of a live worker that its audit names, and all of
-- a dead worker. Forgets a worker that has left, or has been gone for an hour, once its list is empty.
-- Transition: recover
-- KEYS: the partition. ARGV: now, worker, mode (audit | dead | leave), limit, lease_ms, ids of an audit…
-- Returns: {how many were recovered, forgotten 1|0} | {alive}
local worker, mode, limit = ARGV[2], ARGV[3], tonumber(ARGV[4])
local claimed = claimed_key(worker)
local seen = tonumber(call('ZSCORE', WORKERS, worker) or 0)
if mode == 'dead' then
  stamp(tonumber(ARGV[5]))
  -- guard: gone
  local by, lease_max = cutoff()
  if seen > by - lease_max then return { 'alive' } end
end

local ids = {}
if mode == 'audit' then
  for i = 6, #ARGV do ids[i - 5] = ARGV[i] end
else
  ids = call('LRANGE', claimed, -limit, -1)
end
local recovered = 0
for _, id in ipairs(ids) do
  if call('LREM', claimed, 1, id) == 1 then
    local job = read(id)
    -- guard: queued
    if job and not job.state and not running(id) then
      push(job, true)
      recovered = recovered + 1
    end
  end
end
flush()
local forgotten = 0
-- guard: empty
if call('LLEN', claimed) == 0 and (mode == 'leave' or (mode == 'dead' and seen < now - WORKER_FORGET_MS)) then
  call('ZREM', WORKERS, worker)
  redis.call('DEL', worker_key(worker))
  forgotten = 1
end
return { recovered, forgotten }
