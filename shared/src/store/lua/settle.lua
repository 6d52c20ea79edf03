-- Ends a holder's claim. Each settle is answered separately; the same token gets the same answer until the next claim.
-- Transition: complete fail release
-- KEYS: the partition. ARGV: now, worker, n, then for each: verb, id, token, and by the verb:
--   complete: result (JSON)
--   finish (complete, with more): result, reason when skipped, else empty, its files with the token (JSON), or empty
--   fail: error (JSON), ms until the next attempt, empty when there is none
--   release: ms until it is queued again; empty for at once, at the front
-- Returns, for each: completed | failed | retrying | queued | cancelled | stale | missing
local worker, n = ARGV[2], tonumber(ARGV[3])
-- How many arguments an entry has.
local LENGTHS = { complete = 4, finish = 6, fail = 5, release = 4 }

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
  if verb == 'complete' or verb == 'finish' then return complete(job, proof, a, b or '', c or '') end
  -- guard: flagged
  if flagged then
    if verb == 'fail' then redis.call('HSET', job.key, 'error', a) end
    end_job(job, 'cancelled', false, 'settled', 'cancelled', unpack(proof))
    return 'cancelled'
  end
  if verb == 'fail' then return fail(job, record, proof, a, b) end
  return release(job, record, proof, a)
end

-- What all are asked at once.
local ids, keys, places, at = {}, {}, {}, 4
for i = 1, n do
  local id = ARGV[at + 1]
  ids[i], keys[i], places[i] = id, job_key(id), at
  at = at + LENGTHS[ARGV[at]]
end
local records = call('HMGET', RUNNING, unpack(ids))
local flags = call('EXISTS', CANCELLING) == 1 and call('SMISMEMBER', CANCELLING, unpack(ids))
local all_there = redis.call('EXISTS', unpack(keys)) == n

-- The end of a running record as a table: what jobs of one kind have in common.
local tails = {}
local function tail_of(text)
  local kind, parent, permit, again = string.match(text, '^(%S+) (%S+) (%S+) ([01])$')
  tails[text] = {
    first = again == '0', kind = kind, parent = parent ~= '-' and parent, permit = permit ~= '-' and permit,
  }
  return tails[text]
end

-- Completes a job that its holder has claimed for the first time, with one write to its record; nil when it has to be
-- looked at alone.
local leases, ended = collected('ZREM', LEASES), collected('HDEL', RUNNING)
local function complete_first(i, token, result, skipped, output)
  local given, holder, started_at, text = string.match(records[i] or '', '^(%d+) (%S+) (%d+) (.+)$')
  -- guard: holder
  if given ~= token or holder ~= worker or (flags and flags[i] == 1) then return nil end
  local tail = tails[text] or tail_of(text)
  if not tail.first then return nil end
  local id, key = ids[i], keys[i]
  if not all_there and redis.call('EXISTS', key) == 0 then return nil end
  local written = redis.pcall('HSET', key, 'state', 'completed', 'finished_at', now_text, 'result', result,
    'token', token, 'worker', worker, 'started_at', started_at)
  if type(written) == 'table' then return nil end
  if skipped and skipped ~= '' then redis.call('HSET', key, 'skipped', skipped) end
  if output and output ~= '' then redis.call('HSET', key, 'output', output) end
  leases[#leases + 1] = id
  ended[#ended + 1] = id
  if tail.permit then gather('SREM', permits_key(tail.permit), id) end
  if tail.parent then
    index_end({ id = id, kind = tail.kind, parent = tail.parent }, 'completed', skipped and skipped ~= '')
  else
    local index = tail.index or collected('ZADD', ended_key('finished', tail.kind, 'completed'))
    tail.index = index
    index[#index + 1] = now_text
    index[#index + 1] = id
    tell('completed', id)
  end
  return 'completed'
end

local answers, answered = {}, {} -- answered: by id and token
for i = 1, n do
  local place, id = places[i], ids[i]
  local verb, token = ARGV[place], ARGV[place + 2]
  local proof = id .. ' ' .. token
  local answer = answered[proof]
  if not answer and verb == 'complete' then
    answer = complete_first(i, token, ARGV[place + 3])
  elseif not answer and verb == 'finish' then
    answer = complete_first(i, token, ARGV[place + 3], ARGV[place + 4], ARGV[place + 5])
  end
  answer = answer or settle(unpack(ARGV, place, place + LENGTHS[verb] - 1))
  answers[i], answered[proof] = answer, answer
end
finish()
return answers
