-- Submits the jobs of a schedule's ticks, each once: whoever comes later finds that its next tick is another. Or a job
-- now, because somebody asks for it (`trigger`).
-- Transition: submit cancel
-- KEYS: the partition. ARGV: now, name, revision and tick (as they were read; tick `trigger`: now), next (the tick
--   after these; empty: there is none), overlap (skip | allow | replace), n, then for each job: its tick, id, form, the
--   values of the form's fields (forms: see create.lua)
-- Returns: {changed}: it is not as it was read, or not due | {done, then for each job: created | skipped | exists |
--   kind | queue (it would be one name too many)}
local name, revision, tick, next, overlap, n = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])
local key = schedule_key(name)
local found = call('HMGET', key, 'revision', 'next', 'last_job')
local last, asked = found[3], tick == 'trigger'
-- The call that asked has been repeated, after a lost reply.
if asked and redis.call('EXISTS', job_key(ARGV[9])) == 1 then return { 'done', 'exists' } end
-- guard: revised
if found[1] ~= revision then return { 'changed' } end
-- guard: unmoved
if not asked and found[2] ~= tick then return { 'changed' } end
-- guard: due
if not asked and tonumber(tick) > now then return { 'changed' } end

-- Whether the last job has not ended.
local function is_busy()
  local job = last and read(last)
  return job and not (job.state == 'completed' or job.state == 'failed' or job.state == 'cancelled')
end

local replies, at = { 'done' }, 8
for i = 1, n do
  local own, id, form = ARGV[at], ARGV[at + 1], forms[ARGV[at + 2]] or form_of(ARGV[at + 2])
  local first = at + 3
  at = first + #form.places
  local word = 'created'
  -- guard: once
  if redis.call('EXISTS', job_key(id)) == 1 or tonumber(call('ZSCORE', GONE, id) or 0) > now then
    word = 'exists'
  elseif overlap == 'skip' and is_busy() then
    word = 'skipped'
    redis.call('HSET', key, 'last_skipped_at', own)
  elseif no_room(form) then
    word = no_room(form)[2]
  else
    if overlap == 'replace' and is_busy() then cancel_one(last) end
    create(id, job_key(id), form, first)
    -- What was collected is written now: the next of these jobs may find it.
    flush()
    filled = {}
    -- A job that was asked for must not hide the one of a tick.
    if not asked then
      redis.call('HSET', key, 'last_run_at', own)
    end
    if not asked or not is_busy() then
      last = id
      redis.call('HSET', key, 'last_job', id)
    end
  end
  replies[i + 1] = word
end
if not asked then
  redis.call('HSET', key, 'next', next)
  call('ZADD', SCHEDULES, next ~= '' and next or '+inf', name)
end
return replies
