-- The first call of a sweep: stamps the clock and returns which steps have work, so that an idle partition costs
-- one call.
-- KEYS: the partition. ARGV: now, lease_ms, gap_max_ms, backoff_max_ms, fresh_ms (nothing is done when another has
--   swept within this time)
-- Returns: {fresh, live workers} | {swept, live workers, promote 0|1, reclaim 0|1, prune 0|1, workers to recover,
--   unsealed parents to cancel, {parent, step}… of cascades, leases and running records differ 0|1, {kind, how many to
--   keep, ended ones here}…}
local workers = call('ZCOUNT', WORKERS, now - tonumber(ARGV[2]), '+inf')
local swept_at = tonumber(call('HGET', CLOCK, 'swept'))
if swept_at and now >= swept_at and now - swept_at < tonumber(ARGV[5]) then return { 'fresh', workers } end
stamp(tonumber(ARGV[2]), tonumber(ARGV[3]))
call('HSET', CLOCK, 'swept', now)
local by, lease_max = cutoff()
-- Usually none of them is there: one command for all their steps.
local busy = call('EXISTS', SCHEDULED, RETRYING, LEASES, RUNNING, OPEN, CASCADES) > 0
local function any(key, from, to) return #call('ZRANGEBYSCORE', key, from, to, 'LIMIT', 0, 1) end
local function either(a, b) return a + b > 0 and 1 or 0 end

-- Last seen in the future: the clock was set back since.
for _, worker in ipairs(call('ZRANGEBYSCORE', WORKERS, '(' .. now + 1000, '+inf', 'LIMIT', 0, 100)) do
  call('ZADD', WORKERS, now, worker)
end
local dead = {}
-- A different window of workers each second: those that are only waiting to be forgotten must not hide the rest.
local windows = math.ceil(call('ZCOUNT', WORKERS, '-inf', by - lease_max) / DEAD_WINDOW)
local window = windows > 1 and math.floor(now / 1000) % windows or 0
local gone = call('ZRANGEBYSCORE', WORKERS, '-inf', by - lease_max, 'WITHSCORES', 'LIMIT', window * DEAD_WINDOW,
  DEAD_WINDOW)
for i = 1, #gone, 2 do
  if call('LLEN', claimed_key(gone[i])) > 0 or tonumber(gone[i + 1]) < now - WORKER_FORGET_MS then
    dead[#dead + 1] = gone[i]
  end
end
local cascades = {}
if busy and call('HLEN', CASCADES) > 0 then
  for _, entry in ipairs(call('HRANDFIELD', CASCADES, 10, 'WITHVALUES')) do cascades[#cascades + 1] = entry end
end
local kept = {}
if call('HLEN', RETENTION) > 0 then
  local kinds = call('HRANDFIELD', RETENTION, 50, 'WITHVALUES')
  for i = 1, #kinds, 2 do
    local keep = string.match(kinds[i + 1], '^%d+ %d+ %d+ ([1-9]%d*)$')
    if keep then kept[#kept + 1] = { kinds[i], keep, call('ZCARD', finished_key(kinds[i])) } end
  end
end
return {
  'swept',
  workers,
  busy and either(either(any(SCHEDULED, '-inf', now), any(RETRYING, '-inf', now)),
    any(RETRYING, '(' .. now + tonumber(ARGV[4]), '+inf')) or 0,
  busy and either(any(LEASES, '-inf', by), any(LEASES, '(' .. now + lease_max, '+inf')) or 0,
  any(EXPIRY, '-inf', now),
  dead,
  busy and call('ZRANGEBYSCORE', OPEN, '-inf', unskipped(), 'LIMIT', 0, 100) or {},
  cascades,
  busy and call('HLEN', RUNNING) ~= call('ZCARD', LEASES) and 1 or 0,
  kept,
}
