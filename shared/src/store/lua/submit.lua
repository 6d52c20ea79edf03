-- Writes new and imported jobs, each at most once: a known id or Idempotency-Key changes nothing.
-- Transition: submit import
-- KEYS: the partition. ARGV: now, names_max, idempotency_ms, partitions (by which the caller places keys; 0: it only
--   replays), n, then for each job: id, kind, queue, priority,
--   due (empty; `+ms` from now; or ms), begins (empty; `parent`; or how it had ended: completed, skipped, failed,
--   cancelled, and `:ms` if the time is known), created_at (empty: now; or ms), key and digest (or empty), n_fields,
--   field, value, …
-- Returns, for each: {queued|waiting|completed|failed|cancelled, id, created_at} | {scheduled, id, created_at, due} |
--   {exists|replayed|conflict|gone, id} | {names, kind|queue} | {grown}: the partitions have
--   grown, and a new key belongs elsewhere
local names_max, idempotency_ms, partitions, n = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])

-- Names that an operator has configured do not count: nobody can use up their room.
local registered = { kind = {}, queue = {} } -- by this call
local function known(set, sort, name)
  return registered[sort][name] or call('SISMEMBER', set, name) == 1 or call('SCARD', set) < names_max
    or call('SISMEMBER', RESERVED, sort .. ' ' .. name) == 1
end

local function register(set, sort, name)
  if registered[sort][name] then return end
  call('SADD', set, name)
  registered[sort][name] = true
end

local function replay(kind, key, digest)
  local known = call('GET', idempotency_key(kind, key))
  if not known then return nil end
  local known_digest, id = string.match(known, '^(%S+) (%S+)$')
  if known_digest ~= digest then return { 'conflict', id } end
  return { redis.call('EXISTS', job_key(id)) == 1 and 'replayed' or 'gone', id }
end

-- Whether keys are placed by more partitions than the caller knows: another caller may place this one elsewhere.
local grown
local function has_grown()
  grown = grown or tonumber(call('GET', PARTITIONS) or nil) or 0
  return partitions < grown
end

local function due_at(due)
  if due == '' then return now end
  if string.sub(due, 1, 1) == '+' then return now + tonumber(string.sub(due, 2)) end
  return tonumber(due)
end

local function create(job, due, begins, created_at, first, last)
  local at, state, ends = due_at(due), nil, nil
  if begins == 'parent' then
    state = 'waiting'
    gather('ZADD', WAITING, created_at, job.id)
    gather('ZADD', OPEN, now + OPEN_MS, job.id)
  elseif begins ~= '' then
    ends, job.ended_at = ending(begins)
    if ends == 'skipped' then ends = 'completed' end
  elseif at > now then
    state = 'scheduled'
    gather('ZADD', SCHEDULED, at, job.id)
  else
    push(job)
  end
  redis.call('HSET', job.key, 'kind', job.kind, 'queue', job.queue, 'created_at', created_at, unpack(ARGV, first, last))
  write_unusual(job)
  if state then redis.call('HSET', job.key, 'state', state) end
  if state == 'scheduled' then
    redis.call('HSET', job.key, 'scheduled_at', at)
    if string.sub(due, 1, 1) == '+' then redis.call('HSET', job.key, 'delay_ms', at - now) end
  end
  gather('ZADD', kind_key(job.kind), created_at, job.id)
  if ends then end_job(job, ends) else tell(state or 'queued', job.id) end
  return { ends or state or 'queued', job.id, created_at, state == 'scheduled' and at or nil }
end

local keys, at = {}, 6
for i = 1, n do
  keys[i] = job_key(ARGV[at])
  keys[n + i] = gone_key(ARGV[at])
  at = at + 10 + 2 * ARGV[at + 9]
end
local some_exist = redis.call('EXISTS', unpack(keys)) > 0
local made = {}

-- A job that was just removed counts too, for its submit may be repeated after a lost reply; but an import may bring it
-- back.
local function exists(job, imported)
  return redis.call('EXISTS', job.key) == 1 or not imported and redis.call('EXISTS', gone_key(job.id)) == 1
end

local replies = {}
at = 6
for i = 1, n do
  local job = { id = ARGV[at], kind = ARGV[at + 1], queue = ARGV[at + 2], priority = ARGV[at + 3], key = keys[i] }
  local due, begins, imported = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6] ~= ''
  local created_at = imported and ARGV[at + 6] or now_text
  local key, digest, first = ARGV[at + 7], ARGV[at + 8], at + 10
  at = first + 2 * ARGV[at + 9]
  local reply = key ~= '' and replay(job.kind, key, digest) or nil
  -- guard: once
  if not reply and (made[job.id] or some_exist and exists(job, imported)) then reply = { 'exists', job.id } end
  if not reply and key ~= '' and has_grown() then reply = { 'grown' } end
  if not reply and not known(KINDS, 'kind', job.kind) then reply = { 'names', 'kind' } end
  if not reply and not known(QUEUES, 'queue', job.queue) then reply = { 'names', 'queue' } end
  if not reply then
    register(KINDS, 'kind', job.kind)
    register(QUEUES, 'queue', job.queue)
    made[job.id] = true
    reply = create(job, due, begins, created_at, first, at - 1)
    if key ~= '' then redis.call('SET', idempotency_key(job.kind, key), digest .. ' ' .. job.id, 'PX', idempotency_ms) end
  end
  replies[i] = reply
end
flush()
return replies
