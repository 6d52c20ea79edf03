-- Writes new jobs, each at most once: a known id or Idempotency-Key changes nothing.
-- Transition: submit
-- KEYS: the partition. ARGV: now, names_max, idempotency_ms, n, then for each job: id, kind, queue, priority,
--   due (empty; `+ms` from now; or ms), parent (`parent` or empty), key and digest (or empty), n_fields, field, value, …
-- Returns, for each: {queued|waiting, id, now} | {scheduled, id, now, due} | {exists|replayed|conflict|gone, id} |
--   {names, kind|queue}
local names_max, idempotency_ms, n = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])

local function known(set, name)
  return call('SISMEMBER', set, name) == 1 or call('SCARD', set) < names_max
end

local function replay(kind, key, digest)
  local known = key ~= '' and call('GET', idempotency_key(kind, key))
  if not known then return nil end
  local known_digest, id = string.match(known, '^(%S+) (%S+)$')
  if known_digest ~= digest then return { 'conflict', id } end
  return { redis.call('EXISTS', job_key(id)) == 1 and 'replayed' or 'gone', id }
end

local function due_at(due)
  if due == '' then return now end
  if string.sub(due, 1, 1) == '+' then return now + tonumber(string.sub(due, 2)) end
  return tonumber(due)
end

local function create(job, due, parent, first, last)
  local key, at, state = job_key(job.id), due_at(due), nil
  if parent == 'parent' then
    state = 'waiting'
    gather('ZADD', WAITING, now, job.id)
    gather('ZADD', OPEN, now + OPEN_MS, job.id)
  elseif at > now then
    state = 'scheduled'
    gather('ZADD', SCHEDULED, at, job.id)
  else
    push(job)
  end
  redis.call('HSET', key, 'version', RECORD_VERSION, 'kind', job.kind, 'queue', job.queue, 'priority', job.priority,
    'created_at', now, unpack(ARGV, first, last))
  if state then redis.call('HSET', key, 'state', state) end
  if state == 'scheduled' then redis.call('HSET', key, 'scheduled_at', at) end
  gather('ZADD', kind_key(job.kind), now, job.id)
  tell(state or 'queued', job.id)
  return { state or 'queued', job.id, now, state == 'scheduled' and at or nil }
end

local replies, at = {}, 5
for i = 1, n do
  local job = { id = ARGV[at], kind = ARGV[at + 1], queue = ARGV[at + 2], priority = ARGV[at + 3] }
  local due, parent, key, digest, fields = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6], ARGV[at + 7], tonumber(ARGV[at + 8])
  local first = at + 9
  at = first + 2 * fields
  local reply = replay(job.kind, key, digest)
  -- guard: once
  if not reply and redis.call('EXISTS', job_key(job.id)) == 1 then reply = { 'exists', job.id } end
  if not reply and not known(KINDS, job.kind) then reply = { 'names', 'kind' } end
  if not reply and not known(QUEUES, job.queue) then reply = { 'names', 'queue' } end
  if not reply then
    call('SADD', KINDS, job.kind)
    call('SADD', QUEUES, job.queue)
    reply = create(job, due, parent, first, at - 1)
    if key ~= '' then redis.call('SET', idempotency_key(job.kind, key), digest .. ' ' .. job.id, 'PX', idempotency_ms) end
  end
  replies[i] = reply
end
flush()
return replies
