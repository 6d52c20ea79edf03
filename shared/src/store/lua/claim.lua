-- Leases a worker's reservations, and further jobs up to its free slots. An id that cannot run here is moved to where
-- it blocks no other: parked, suspect, back to the front, or dropped when it is not queued.
-- Transition: claim
-- KEYS: the partition. ARGV: now, worker, lease_ms, slots, suspects (how many more this worker may run), scan (ids to
--   examine), seen (the highest token this worker has seen), n reservations: (queue, id)…, n queues: (queue, budget)…,
--   n kinds: (kind, max_running or 0)…
-- Returns: {paused queues, more (1: there are further ids), server time ms, {id, token, kind to run, field, value, …}…}
local worker, lease_ms, slots, suspects, scan, seen = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]),
  tonumber(ARGV[6]), token_of(ARGV[7])
local at = 8
local function pairs_of()
  local n, list = tonumber(ARGV[at]), {}
  for i = 1, n do list[i] = { ARGV[at + 2 * i - 1], ARGV[at + 2 * i] } end
  at = at + 1 + 2 * n
  return list
end
local reservations, queues, limits = pairs_of(), pairs_of(), {}
for _, kind in ipairs(pairs_of()) do limits[kind[1]] = tonumber(kind[2]) end

local used, picked, taken, paused, bytes = {}, {}, {}, {}, 0
local function room(kind)
  local limit = limits[kind]
  if not limit then return 0 end
  if limit == 0 then return math.huge end
  if not used[kind] then used[kind] = call('SCARD', permits_key(kind)) end
  return limit - used[kind]
end

local function park(job)
  gather('LPUSH', parked_key(job.queue, job.runs), job.id)
  gather('SADD', parked_index(job.queue), job.runs)
end

-- The whole record; nil, and it is set aside, when no handler could be given it.
local function fields_of(job)
  local fields, has = redis.call('HGETALL', job.key), {}
  for i = 1, #fields, 2 do has[fields[i]] = true end
  if has.payload and has.created_at then return fields end
  set_aside(job.key, (has.payload and 'created_at' or 'payload') .. ' is missing', job.parent)
end

-- Decides where an id taken from its list goes; true when this claim leases it.
local function consider(id)
  local job = read(id)
  -- guard: queued (neither gone, nor ended, nor waiting for its time, nor running already)
  if not job or job.state or taken[id] or call('HEXISTS', RUNNING, id) == 1 then return false end
  local crashed = tonumber(job.crashes or 0) > 0
  if room(job.runs) <= 0 then
    park(job)
  elseif crashed and suspects <= 0 then
    gather('LPUSH', queue_key(job.queue) .. ':suspect', id)
  else
    job.fields = fields_of(job)
    if not job.fields then return false end
    if crashed then suspects = suspects - 1 end
    if used[job.runs] then used[job.runs] = used[job.runs] + 1 end
    slots, taken[id] = slots - 1, true
    picked[#picked + 1] = job
    for _, value in ipairs(job.fields) do bytes = bytes + #value end
    -- A reply too large to arrive in time would make the worker release the job, and the next claim would send it again.
    if bytes > BATCH_BYTES_MAX then slots, scan = 0, 0 end
    return true
  end
  return false
end

-- Ids examined at the end of each list. They leave it once it is decided where each of them goes, so that an error on
-- the way loses none.
local examined = {}

local function take(list, budget)
  while budget > 0 and scan > 0 do
    local passed = examined[list] or 0
    local ids = call('LRANGE', list, -passed - math.min(budget, scan), -passed - 1)
    if #ids == 0 then return budget end
    for i = #ids, 1, -1 do
      if scan <= 0 then return budget end
      scan, passed = scan - 1, passed + 1
      examined[list] = passed
      if consider(ids[i]) then
        budget = budget - 1
        gather('LPUSH', claimed_key(worker), ids[i])
      end
    end
  end
  return budget
end

local function take_parked(queue, budget)
  for _, kind in ipairs(call('SMEMBERS', parked_index(queue))) do
    local list = parked_key(queue, kind)
    local free = math.min(budget, room(kind))
    if free > 0 then budget = budget - free + take(list, free) end
  end
  return budget
end

local function take_from(queue, budget)
  local own = queue_key(queue)
  budget = take_parked(queue, budget)
  local crashed = math.min(suspects, budget)
  budget = budget - crashed + take(own .. ':suspect', crashed)
  for _, list in ipairs({ own .. ':high', own, own .. ':low' }) do budget = take(list, budget) end
end

-- Removes an id from this worker's list, unless the id is there because the worker holds its lease (a late claim).
local function unless_leased(id)
  local record = running(id)
  -- guard: leased
  if not record or record.worker ~= worker then call('LREM', claimed_key(worker), 1, id) end
end

for _, r in ipairs(reservations) do
  local queue, id = r[1], r[2]
  -- guard: reserved
  if not taken[id] and call('LPOS', claimed_key(worker), id) then
    local stopped = call('SISMEMBER', PAUSED, queue) == 1
    if stopped or slots <= 0 then
      local job = read(id)
      if job and not job.state and not running(id) then push(job, true) end
      unless_leased(id)
    elseif not consider(id) then
      unless_leased(id)
    end
  end
end
for pass = 1, 2 do
  for _, q in ipairs(queues) do
    if pass == 1 and call('SISMEMBER', PAUSED, q[1]) == 1 then paused[#paused + 1], paused[q[1]] = q[1], true end
    if not paused[q[1]] then take_from(q[1], math.min(slots, pass == 1 and tonumber(q[2]) or slots)) end
  end
end

local token = 0
if #picked > 0 then
  -- guard: fresh-token
  token = last_token()
  -- guard: outrun (a counter that was rolled back is behind the clock)
  token = math.max(token, now_us - 1)
  -- guard: seen (the clock may be behind)
  token = math.max(token, seen)
  for _, job in ipairs(picked) do token = math.max(token, token_of(job.token)) end
  redis.call('SET', TOKENS, string.format('%.0f', token + #picked))
end
local jobs = {}
for i, job in ipairs(picked) do
  local limited = limits[job.runs] > 0
  local record = string.format('%.0f %s %.0f', token + i, worker, now)
  if limited then
    record = record .. ' ' .. job.runs
    gather('SADD', permits_key(job.runs), job.id)
  end
  gather('ZADD', LEASES, now + lease_ms, job.id)
  gather('HSET', RUNNING, job.id, record)
  tell('running', job.id)
  jobs[i] = { job.id, string.format('%.0f', token + i), job.runs, unpack(job.fields) }
end
for list, passed in pairs(examined) do call('LTRIM', list, 0, -passed - 1) end
flush()
for _, q in ipairs(queues) do
  for _, kind in ipairs(call('SMEMBERS', parked_index(q[1]))) do
    if call('LLEN', parked_key(q[1], kind)) == 0 then call('SREM', parked_index(q[1]), kind) end
  end
end
-- An idle worker blocks on the own list only, so the next job of another priority is moved there to wake it.
for _, q in ipairs(queues) do
  local own = queue_key(q[1])
  if call('LLEN', own) == 0 then
    local from = call('LLEN', own .. ':high') > 0 and ':high' or call('LLEN', own .. ':low') > 0 and ':low'
    if from then call('RPOPLPUSH', own .. from, own) end
  end
end
return { paused, scan <= 0 and (slots > 0 or bytes > BATCH_BYTES_MAX) and 1 or 0, now, unpack(jobs) }
