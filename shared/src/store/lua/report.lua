-- Saves the reports of running handlers: progress, checkpoints for the next attempt, and warnings for the history.
-- KEYS: the partition. ARGV: now, worker, n, then for each: id, token, percent, message, checkpoint (JSON), warning;
-- empty = none
-- Returns, for each: saved | stale
local worker, n = ARGV[2], tonumber(ARGV[3])

local function report(id, token, percent, message, checkpoint, warning)
  local record = running(id)
  -- guard: holder
  if not record or record.token ~= token or record.worker ~= worker then return 'stale' end
  local job = read(id)
  if not job then return 'stale' end
  local before = redis.call('HMGET', job.key, 'message', 'checkpoint')
  local fields = { 'updated_at', now }
  local function set(field, value)
    fields[#fields + 1], fields[#fields + 2] = field, value
  end
  if percent ~= '' then set('percent', percent) end
  if message ~= '' and message ~= before[1] then
    set('message', message)
    note_run(job, record, 'phase', { message = message })
  end
  if checkpoint ~= '' and checkpoint ~= before[2] then
    set('checkpoint', checkpoint)
    -- A checkpoint resets the crashes before it, but never their total.
    redis.call('HDEL', job.key, 'crashes')
  end
  if warning ~= '' then note_run(job, record, 'warning', { message = warning }) end
  redis.call('HSET', job.key, unpack(fields))
  tell('progress', id)
  return 'saved'
end

local answers = {}
for i = 1, n do
  local at = 4 + 6 * (i - 1)
  answers[i] = report(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5])
end
flush()
return answers
