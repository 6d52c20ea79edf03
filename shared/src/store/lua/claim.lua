-- Leases a worker's reservations, and further jobs up to its free slots. An id that cannot run here is moved to where
-- it blocks no other: parked, suspect, back to the front, or dropped when it is not queued. A claim that is sent again
-- with its number, because its reply was lost, gets the jobs of the first, up to its slots: the others are released.
-- Transition: claim
-- KEYS: the partition. ARGV: now, worker, number (of this claim among the worker's), lease_ms, slots, suspects (how
--   many more this worker may run), scan (ids to examine), seen (the highest token this worker has seen),
--   n reservations: (queue, id)…, n queues: (queue, budget)…, n kinds: (kind, max_running or 0)…
-- Returns: {paused queues, more (1: there are further ids), server time ms, {field, value, … id, token, kind to run}…}
local worker, number, lease_ms, slots, suspects, scan, seen = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]),
  tonumber(ARGV[6]), tonumber(ARGV[7]), token_of(ARGV[8])
local at = 9
local function pairs_of()
  local n, list = tonumber(ARGV[at]), {}
  for i = 1, n do list[i] = { ARGV[at + 2 * i - 1], ARGV[at + 2 * i] } end
  at = at + 1 + 2 * n
  return list
end
local reservations, queues, limits = pairs_of(), pairs_of(), {}
for _, kind in ipairs(pairs_of()) do limits[kind[1]] = tonumber(kind[2]) end

-- The whole record as a job, with its fields and values in a row; nil when it is missing or damaged, or when no handler
-- could be given it: then it is set aside.
local function whole(id)
  local key = job_key(id)
  local row = redis.pcall('HGETALL', key)
  if row.err then
    set_aside(key, 'WRONGTYPE')
    return nil
  end
  if #row == 0 then return nil end
  -- Naming the fields that nearly all have makes the table large enough at once.
  local job = { id = id, key = key, row = row, kind = false, queue = false, created_at = false, payload = false,
    max_attempts = false, priority = false, runs = false }
  for i = 1, #row, 2 do job[row[i]] = row[i + 1] end
  -- Whatever fields somebody has written by hand.
  job.id, job.key, job.row = id, key, row
  local fault = damaged(job)
  if not fault and not job.state and not (job.payload and job.created_at) then
    fault = (job.payload and 'created_at' or 'payload') .. ' is missing'
  end
  if fault then
    set_aside(key, fault, job.parent)
    return nil
  end
  job.runs = job.items_total and job['then'] or job.kind
  return job
end

local function answer(job, token)
  local row = job.row
  local n = #row
  row[n + 1], row[n + 2], row[n + 3] = job.id, token, job.runs
  return row
end

local own = worker_key(worker)
local before = call('HMGET', own, 'claim', 'claimed')
-- guard: numbered (a copy that arrives after the next claim does nothing)
if tonumber(before[1] or '') and tonumber(number) < tonumber(before[1]) then return { {}, 0, now } end
if before[1] == number then
  local jobs, kept, released = {}, {}, {}
  for id, token in string.gmatch(before[2] or '', '(%S+) (%d+)') do
    local record = running(id)
    local job = record and record.token == token and record.worker == worker and whole(id)
    if job and #jobs < slots then
      kept[#kept + 1] = id .. ' ' .. token
      jobs[#jobs + 1] = answer(job, token)
    elseif job and call('SISMEMBER', CANCELLING, id) == 0 then
      stop_running(id, record)
      released[#released + 1] = job
    end
  end
  -- Each goes to the front, so the first of them goes last.
  for i = #released, 1, -1 do
    push(released[i], true)
    tell('queued', released[i].id)
  end
  call('HSET', own, 'claimed', table.concat(kept, ' '))
  flush()
  return { {}, 1, now, unpack(jobs) }
end

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

-- Decides where an id taken from its list goes; true when this claim leases it. `record`: its running record, if any.
local function consider(id, record)
  -- guard: queued (neither gone, nor ended, nor waiting for its time, nor running already)
  if record or taken[id] then return false end
  local job = whole(id)
  if not job or job.state then return false end
  local crashed = job.crashes and tonumber(job.crashes) > 0
  if room(job.runs) <= 0 then
    park(job)
  elseif crashed and suspects <= 0 then
    gather('LPUSH', queue_key(job.queue) .. ':suspect', id)
  else
    if crashed then suspects = suspects - 1 end
    if used[job.runs] then used[job.runs] = used[job.runs] + 1 end
    slots, taken[id] = slots - 1, true
    picked[#picked + 1] = job
    bytes = bytes + 200 + #job.payload + (job.checkpoint and #job.checkpoint or 0)
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
    local records = call('HMGET', RUNNING, unpack(ids))
    for i = #ids, 1, -1 do
      if scan <= 0 then return budget end
      scan, passed = scan - 1, passed + 1
      examined[list] = passed
      if consider(ids[i], records[i]) then budget = budget - 1 end
    end
  end
  return budget
end

local have_parked = {} -- queues of which kinds are listed as parked
local function take_parked(queue, budget)
  for _, kind in ipairs(call('SMEMBERS', parked_index(queue))) do
    have_parked[queue] = true
    local list = parked_key(queue, kind)
    local free = math.min(budget, room(kind))
    if free > 0 then budget = budget - free + take(list, free) end
  end
  return budget
end

local function take_from(queue, budget)
  local own = queue_key(queue)
  if budget <= 0 then return end
  local lists = redis.call('EXISTS', own, own .. ':high', own .. ':low', own .. ':suspect', parked_index(queue))
  if lists == 0 then return end
  budget = take_parked(queue, budget)
  local crashed = math.min(suspects, budget)
  budget = budget - crashed + take(own .. ':suspect', crashed)
  for _, list in ipairs({ own .. ':high', own, own .. ':low' }) do budget = take(list, budget) end
end

local function is_paused(queue)
  if paused[queue] == nil then paused[queue] = call('SISMEMBER', PAUSED, queue) == 1 end
  return paused[queue]
end

for _, r in ipairs(reservations) do
  local queue, id = r[1], r[2]
  -- guard: reserved
  if call('LREM', claimed_key(worker), 1, id) == 1 then
    if is_paused(queue) or slots <= 0 then
      local job = read(id)
      if job and not job.state and not taken[id] and not running(id) then push(job, true) end
    else
      consider(id, call('HGET', RUNNING, id))
    end
  end
end
-- Each queue gets its share first; then what others did not use.
local over = {}
for _, q in ipairs(queues) do
  local queue, share = q[1], tonumber(q[2])
  if is_paused(queue) then
    paused[#paused + 1] = queue
  else
    if share < slots then over[#over + 1] = queue end
    take_from(queue, math.min(slots, share))
  end
end
for _, queue in ipairs(over) do take_from(queue, slots) end

local jobs, mine = {}, {}
if #picked > 0 then
  -- guard: fresh-token
  local token = last_token()
  -- guard: outrun (a counter that was rolled back is behind the clock)
  token = math.max(token, now_us - 1)
  -- guard: seen (the clock may be behind)
  token = math.max(token, seen)
  for _, job in ipairs(picked) do
    if job.token then token = math.max(token, token_of(job.token)) end
  end
  redis.call('SET', TOKENS, string.format('%.0f', token + #picked))
  local leases, records = collected('ZADD', LEASES), collected('HSET', RUNNING)
  local ends, since = string.format('%.0f', now + lease_ms), ' ' .. worker .. ' ' .. now_text .. ' '
  local first_of = {} -- the end of the running records of first attempts without batch and permit, by kind
  for i = 1, #picked do
    local job = picked[i]
    local id, kind, given = job.id, job.kind, string.format('%.0f', token + i)
    local tail = first_of[kind]
    if not tail or job.runs ~= kind or job.parent or job.token or job.settled or job.attempts then
      local limited = limits[job.runs] > 0
      if limited then gather('SADD', permits_key(job.runs), id) end
      local again = job.token or job.settled or job.attempts
      tail = kind .. ' ' .. (job.parent or '-') .. ' ' .. (limited and job.runs or '-') .. (again and ' 1' or ' 0')
      if not (limited or again or job.parent or job.runs ~= kind) then first_of[kind] = tail end
    end
    leases[2 * i - 1], leases[2 * i] = ends, id
    records[2 * i - 1], records[2 * i] = id, given .. since .. tail
    mine[i] = id .. ' ' .. given
    tell('running', id)
    jobs[i] = answer(job, given)
  end
end
call('HSET', own, 'claim', number, 'claimed', table.concat(mine, ' '))
for list, passed in pairs(examined) do call('LTRIM', list, 0, -passed - 1) end
flush()
for queue in pairs(have_parked) do
  for _, kind in ipairs(call('SMEMBERS', parked_index(queue))) do
    if call('LLEN', parked_key(queue, kind)) == 0 then call('SREM', parked_index(queue), kind) end
  end
end
-- An idle worker blocks on the own list only, so the next job of another priority is moved there to wake it.
for _, q in ipairs(queues) do
  local own = queue_key(q[1])
  if redis.call('EXISTS', own .. ':high', own .. ':low') > 0 and call('LLEN', own) == 0 then
    local from = call('LLEN', own .. ':high') > 0 and ':high' or call('LLEN', own .. ':low') > 0 and ':low'
    if from then call('RPOPLPUSH', own .. from, own) end
  end
end
return { paused, scan <= 0 and (slots > 0 or bytes > BATCH_BYTES_MAX) and 1 or 0, now, unpack(jobs) }
