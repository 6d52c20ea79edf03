-- Ends a holder's claim. Each settle is answered separately; the same token gets the same answer until the next claim.
-- Transition: complete fail release
-- KEYS: the partition. ARGV: now, worker, n, then for each: verb, id, token, a, b, c
--   complete: a = result (JSON), b = reason when skipped, else empty, c = its files with the token (JSON), or empty
--   fail: a = error (JSON), b = ms until the next attempt, empty when there is none
--   release: a = empty, b = ms until it is queued again, empty for at once, at the front
-- Returns, for each: completed | failed | retrying | queued | cancelled | stale | missing
local worker, n = ARGV[2], tonumber(ARGV[3])

local function complete(job, proof, result, skipped, output)
  if job.settled or job.attempts then redis.call('HDEL', job.key, 'settled', 'error') end
  if skipped ~= '' then redis.call('HSET', job.key, 'skipped', skipped) end
  if output ~= '' then redis.call('HSET', job.key, 'output', output) end
  end_job(job, 'completed', skipped ~= '', 'result', result, unpack(proof))
  return 'completed'
end

local function retry_in(job, ms, proof, ...)
  redis.call('HSET', job.key, 'state', 'retrying', 'settled', 'retrying', 'updated_at', now, ...)
  redis.call('HSET', job.key, unpack(proof))
  gather('ZADD', RETRYING, now + tonumber(ms), job.id)
  tell('retrying', job.id)
  return 'retrying'
end

local function fail(job, record, proof, failure, ms)
  call('HINCRBY', job.key, 'attempts', 1)
  note_run(job, record, 'fail', { error = cjson.decode(failure) })
  if ms ~= '' then return retry_in(job, ms, proof, 'error', failure) end
  end_job(job, 'failed', false, 'error', failure, 'settled', 'failed', unpack(proof))
  return 'failed'
end

local function release(job, record, proof, ms)
  note_run(job, record, 'release', {})
  if ms ~= '' then return retry_in(job, ms, proof) end
  redis.call('HSET', job.key, 'settled', 'queued', 'updated_at', now, unpack(proof))
  push(job, true)
  tell('queued', job.id)
  return 'queued'
end

-- Settles what needs to be looked at alone.
local function settle(verb, id, token, a, b, c)
  local record, job = running(id), read(id)
  -- guard: holder
  if not record or record.token ~= token or record.worker ~= worker then
    if not job then return 'missing' end
    -- guard: settled (until the next claim)
    return not record and job.token == token and (job.settled or job.state) or 'stale'
  end
  local flagged = call('SISMEMBER', CANCELLING, id) == 1
  stop_running(id, record)
  if not job then return 'missing' end
  local proof = { 'token', token, 'worker', worker, 'started_at', record.started_at }
  if verb == 'complete' then return complete(job, proof, a, b, c) end
  -- guard: flagged
  if flagged then
    if verb == 'fail' then redis.call('HSET', job.key, 'error', a) end
    end_job(job, 'cancelled', false, 'settled', 'cancelled', unpack(proof))
    return 'cancelled'
  end
  if verb == 'fail' then return fail(job, record, proof, a, b) end
  return release(job, record, proof, b)
end

-- What all are asked at once.
local ids, keys = {}, {}
for i = 1, n do
  ids[i] = ARGV[6 * i - 1]
  keys[i] = job_key(ids[i])
end
local records = call('HMGET', RUNNING, unpack(ids))
local flags = call('EXISTS', CANCELLING) == 1 and call('SMISMEMBER', CANCELLING, unpack(ids))
local all_there = redis.call('EXISTS', unpack(keys)) == n

-- Completes a job that its holder has claimed for the first time, with one write to its record; nil when it has to be
-- looked at alone.
local leases, ended = collected('ZREM', LEASES), collected('HDEL', RUNNING)
local function complete_first(i, token, result, skipped, output)
  local given, holder, started_at, kind, parent, permit, again = string.match(records[i] or '', RECORD)
  -- guard: holder
  if given ~= token or holder ~= worker or again ~= '0' or (flags and flags[i] == 1) then return nil end
  local id, key = ids[i], keys[i]
  if not all_there and redis.call('EXISTS', key) == 0 then return nil end
  local written = redis.pcall('HSET', key, 'state', 'completed', 'finished_at', now_text, 'result', result,
    'token', token, 'worker', worker, 'started_at', started_at)
  if type(written) == 'table' then return nil end
  if skipped ~= '' then redis.call('HSET', key, 'skipped', skipped) end
  if output ~= '' then redis.call('HSET', key, 'output', output) end
  leases[#leases + 1] = id
  ended[#ended + 1] = id
  if permit ~= '-' then gather('SREM', permits_key(permit), id) end
  index_end({ id = id, kind = kind, parent = parent ~= '-' and parent }, 'completed', skipped ~= '')
  return 'completed'
end

local answers, answered = {}, {}
for i = 1, n do
  local at, id = 6 * i - 2, ids[i]
  local again = answered[id]
  if again and again.token == ARGV[at + 2] then
    answers[i] = again.answer
  else
    local answer = not again and ARGV[at] == 'complete'
      and complete_first(i, ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5])
    answers[i] = answer or settle(unpack(ARGV, at, at + 5))
    answered[id] = again or { token = ARGV[at + 2], answer = answers[i] }
  end
end
finish()
return answers
