-- The first call of a sweep: stamps the clock and returns which steps have work, so that an idle partition costs
-- one call.
-- KEYS: the partition. ARGV: now, part (short: promote, reclaim, recover | long: the others | all), lease_ms,
--   backoff_max_ms, fresh_ms (nothing is done when another has swept this part within this time), cascades_max (how
--   many of each sort are returned)
-- Returns: {fresh, live workers, ms until a schedule's next tick} | {swept, the same two, and for a part that was not
--   asked for 0, or nothing: promote 0|1, reclaim 0|1, workers to recover, leases and running records differ 0|1,
--   unsealed parents to cancel, {parent, step, items}… of cancels and retries, the same of removals, there are further
--   of these 0|1, prune 0|1, {kind, how many to keep, ended ones here}…, keys that were set aside, the long part may
--   have work 0|1}
local part, lease_ms = ARGV[2], tonumber(ARGV[3])
local short, long, mark = part ~= 'long', part ~= 'short', part == 'long' and 'swept_long' or 'swept'
local workers = call('ZCOUNT', WORKERS, now - lease_ms, '+inf')
local swept_at = tonumber(call('HGET', CLOCK, mark))
-- When the first tick of a schedule is due, ms from now; empty: there is none.
local first = call('ZRANGE', SCHEDULES, 0, 0, 'WITHSCORES')[2]
local tick_in = tonumber(first) and tonumber(first) < math.huge and math.max(tonumber(first) - now, 0) or ''
if swept_at and now >= swept_at and now - swept_at < tonumber(ARGV[5]) then return { 'fresh', workers, tick_in } end
stamp(lease_ms)
call('HSET', CLOCK, mark, now)
local by, lease_max = cutoff()
-- Usually none of them is there: one command for all their steps.
local busy = call('EXISTS', SCHEDULED, RETRYING, LEASES, RUNNING, OPEN, CASCADES, REMOVALS, ASIDE) > 0
local function any(key, from, to) return #call('ZRANGEBYSCORE', key, from, to, 'LIMIT', 0, 1) end
local function either(a, b) return a + b > 0 and 1 or 0 end

local function dead_workers()
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
  return dead
end

local more = 0
local function standing(place)
  local found, most = {}, tonumber(ARGV[6])
  if call('HLEN', place) == 0 then return found end
  local entries = call('HRANDFIELD', place, most, 'WITHVALUES')
  for i = 1, #entries, 2 do
    found[#found + 1] = { entries[i], entries[i + 1], call('HGET', job_key(entries[i]), 'items_total') or 0 }
  end
  if call('HLEN', place) > most then more = 1 end
  return found
end

local function kept()
  local found = {}
  if call('HLEN', RETENTION) == 0 then return found end
  local kinds = call('HRANDFIELD', RETENTION, 50, 'WITHVALUES')
  for i = 1, #kinds, 2 do
    local keep = string.match(kinds[i + 1], '^%d+ %d+ %d+ ([1-9]%d*)$')
    if keep then
      local ended = 0
      for _, state in ipairs(FINAL) do
        ended = ended + call('ZCARD', ended_key('finished', kinds[i], state))
          + call('ZCARD', ended_key('imported', kinds[i], state))
      end
      found[#found + 1] = { kinds[i], keep, ended }
    end
  end
  return found
end

-- Notes in `due` the kinds with jobs whose retention has passed: of a window of the kinds, another one in each sweep.
local function note_due()
  local kinds, by = call('SRANDMEMBER', KINDS, KINDS_WINDOW), unskipped()
  for _, kind in ipairs(kinds) do
    for _, state in ipairs(FINAL) do
      if any(ended_key('finished', kind, state), '-inf', by - retention(kind, state)) == 1 then
        call('SADD', DUE, kind)
        break
      end
    end
  end
end

local function prune_is_due()
  return either(call('SCARD', DUE), any(EXPIRY, '-inf', unskipped()))
end

-- The number of names is limited, so those that nothing uses are dropped once half of them are in use.
local function drop_names()
  if call('SCARD', QUEUES) > NAMES_MAX / 2 then
    for _, queue in ipairs(call('SRANDMEMBER', QUEUES, 50)) do
      local own = queue_key(queue)
      if call('EXISTS', own, own .. ':high', own .. ':low', own .. ':suspect', parked_index(queue)) == 0
        and call('SISMEMBER', PAUSED, queue) + call('SISMEMBER', RESERVED, 'queue ' .. queue) == 0 then
        call('SREM', QUEUES, queue)
      end
    end
  end
  if call('SCARD', KINDS) > NAMES_MAX / 2 then
    for _, kind in ipairs(call('SRANDMEMBER', KINDS, 50)) do
      local keys = { kind_key(kind), permits_key(kind) }
      for _, state in ipairs(FINAL) do
        for _, place in ipairs(ENDED) do keys[#keys + 1] = ended_key(place, kind, state) end
      end
      if call('EXISTS', unpack(keys)) == 0 and call('SISMEMBER', RESERVED, 'kind ' .. kind) == 0 then
        call('SREM', KINDS, kind)
      end
    end
  end
end

-- How many ids at each end of a list a sweep looks at.
local WINDOW = 200

-- Drops ids of jobs that have ended or are gone from the ends of the lists of one queue, which is any: nobody may claim
-- from it. Those in the middle are not looked for, since the cost would grow with the list.
local function drop_ended()
  local queue = call('SRANDMEMBER', QUEUES)
  if not queue then return end
  local own = queue_key(queue)
  local lists = { own, own .. ':high', own .. ':low', own .. ':suspect' }
  for _, kind in ipairs(call('SRANDMEMBER', parked_index(queue), 4)) do lists[#lists + 1] = parked_key(queue, kind) end
  -- The ids that stay, in the order in which they are pushed back; nil when all stay.
  local function staying(ids, first, last, step)
    local left = {}
    for i = first, last, step do
      local job = look('HMGET', job_key(ids[i]), 'kind', 'state')
      if not job or (job[1] and not job[2]) then left[#left + 1] = ids[i] end
    end
    return #left < #ids and left or nil
  end
  for _, list in ipairs(lists) do
    local ids = call('LRANGE', list, -WINDOW, -1)
    local left = staying(ids, 1, #ids, 1)
    if left then
      call('LTRIM', list, 0, -#ids - 1)
      if #left > 0 then call('RPUSH', list, unpack(left)) end
    end
    -- A shorter list has been seen whole.
    ids = #ids == WINDOW and call('LRANGE', list, 0, WINDOW - 1) or {}
    left = staying(ids, #ids, 1, -1)
    if left then
      call('LTRIM', list, #ids, -1)
      if #left > 0 then call('LPUSH', list, unpack(left)) end
    end
  end
end

-- Drops permits without a running record: both are written and removed in one script, so the record and the job have
-- been lost. The kinds with a limit are in the kinds file.
local function drop_permits()
  local kinds = call('SRANDMEMBER', KINDS, 10)
  for _, name in ipairs(call('SRANDMEMBER', RESERVED, 20)) do kinds[#kinds + 1] = string.match(name, '^kind (%S+)$') end
  for _, kind in ipairs(kinds) do
    for _, id in ipairs(call('SRANDMEMBER', permits_key(kind), 20)) do
      if call('HEXISTS', RUNNING, id) == 0 then call('SREM', permits_key(kind), id) end
    end
  end
end

local reply = { 'swept', workers, tick_in, 0, 0, {}, 0, {}, {}, {}, 0, 0, {}, {}, 0 }
local function long_is_due()
  if prune_is_due() == 1 then return 1 end
  if busy and call('EXISTS', CASCADES, REMOVALS, ASIDE) + any(OPEN, '-inf', unskipped()) > 0 then return 1 end
  for _, kind in ipairs(kept()) do
    if kind[3] > 0 then return 1 end
  end
  return 0
end
note_due()
if short then
  if busy then
    reply[4] = either(either(any(SCHEDULED, '-inf', now), any(RETRYING, '-inf', now)),
      any(RETRYING, '(' .. now + tonumber(ARGV[4]), '+inf'))
    if call('HEXISTS', CLOCK, 'ahead_until') == 1 then reply[4] = 1 end
    reply[5] = either(any(LEASES, '-inf', by), any(LEASES, '(' .. now + lease_max, '+inf'))
    reply[7] = call('HLEN', RUNNING) ~= call('ZCARD', LEASES) and 1 or 0
  end
  reply[6] = dead_workers()
  if not long then reply[15] = long_is_due() end
end
if long then
  if busy then
    reply[8] = call('ZRANGEBYSCORE', OPEN, '-inf', unskipped(), 'LIMIT', 0, 100)
    reply[9], reply[10] = standing(CASCADES), standing(REMOVALS)
    reply[11] = more
    if call('HLEN', ASIDE) > 0 then reply[14] = call('HRANDFIELD', ASIDE, 100) end
  end
  drop_ended()
  drop_permits()
  drop_names()
  reply[12], reply[13] = prune_is_due(), kept()
end
return reply
