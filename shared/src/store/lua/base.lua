-- Included first in every script: the partition, its key names, the clock, and the one way to call Redis. A script gets
-- only the definitions that it uses.
--
-- KEYS[1] is the partition's prefix `lh:{P}`; every other key is built from it here, so that all of a script's keys
-- share its hash slot. ARGV[1] is the time in ms; empty means the server's clock (tests pass a time).
local P = KEYS[1]
local now, now_us = tonumber(ARGV[1]), nil
if now then
  now_us = now * 1000
else
  local t = redis.call('TIME')
  now, now_us = t[1] * 1000 + math.floor(t[2] / 1000), t[1] * 1000000 + t[2]
end
-- For commands that are called for each job: Redis takes longer to print a number.
local now_text = string.format('%.0f', now)

local LEASES = P .. ':leases'
local RUNNING = P .. ':running'
local CANCELLING = P .. ':cancelling'
local SCHEDULED = P .. ':scheduled'
local RETRYING = P .. ':retrying'
local WAITING = P .. ':waiting'
local OPEN = P .. ':open'
local EXPIRY = P .. ':expiry'
local DUE = P .. ':due'
local CASCADES = P .. ':cascades'
local REMOVALS = P .. ':removals'
local GONE = P .. ':gone'
local TOKENS = P .. ':tokens'
local CLOCK = P .. ':clock'
local KINDS = P .. ':kinds'
local QUEUES = P .. ':queues'
local PAUSED = P .. ':paused'
local RETENTION = P .. ':retention'
local RESERVED = P .. ':reserved'
local PARTITIONS = P .. ':partitions'
local WORKERS = P .. ':workers'
local QUARANTINE = P .. ':quarantine'
local ASIDE = P .. ':aside'
local CHANGES = P .. ':changes'
local HINTS = P .. ':hints'
local SCHEDULES = P .. ':schedules'
local FINAL = { 'completed', 'failed', 'cancelled' }
local ENDED = { 'finished', 'imported', 'items' }
local function job_key(id) return P .. ':job:' .. id end
local function history_key(id) return P .. ':history:' .. id end
local function queue_key(queue) return P .. ':queue:' .. queue end
local function parked_index(queue) return P .. ':parked:' .. queue end
local function parked_key(queue, kind) return P .. ':parked:' .. queue .. ':' .. kind end
local function permits_key(kind) return P .. ':permits:' .. kind end
local function claimed_key(worker) return P .. ':claimed:' .. worker end
local function worker_key(worker) return P .. ':worker:' .. worker end
local function kind_key(kind) return P .. ':kind:' .. kind end
-- The jobs of a kind and final state, in one of the places of `ENDED`.
local function ended_key(place, kind, state) return P .. ':' .. place .. ':' .. kind .. ':' .. state end
local function schedule_key(name) return P .. ':schedule:' .. name end
local function idempotency_key(kind, key) return P .. ':idempotency:' .. kind .. ':' .. key end

local function quarantined_key(key) return P .. ':quarantined:' .. string.sub(key, #P + 2) end

-- An unreadable key (of the wrong type, or a record with missing fields) is set aside: renamed, reported in
-- `quarantine`, and noted in `aside` for the next sweep, with the batch of an item if it is known. The script continues
-- as if it were absent.
local function set_aside(key, reason, parent)
  redis.call('RENAME', key, quarantined_key(key))
  redis.pcall('HSET', ASIDE, key, parent or '')
  local reported = redis.pcall('HSET', QUARANTINE, key, now .. ' ' .. reason)
  if type(reported) == 'table' then
    redis.call('RENAME', QUARANTINE, P .. ':quarantined:quarantine')
    redis.call('HSET', QUARANTINE, key, now .. ' ' .. reason)
  end
end

-- Lua has no rollback, so no command may fail half-way: a key of the wrong type is set aside and the command repeated.
local function call(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) == 'table' and reply.err then
    if string.sub(reply.err, 1, 9) ~= 'WRONGTYPE' then error(reply.err) end
    set_aside(key, 'WRONGTYPE')
    return redis.call(command, key, ...)
  end
  return reply
end

-- `call` for read-only scripts: an unreadable key is treated as absent.
local function look(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) == 'table' and reply.err then return nil end
  return reply
end

-- Commands with many members are collected here and sent once by `flush`, at most 1,000 arguments a call.
local gathered, order = {}, {}
-- The arguments collected for a command on a key, to which the caller may append.
local function collected(command, key)
  local of_key = gathered[key]
  if not of_key then
    of_key = {}
    gathered[key] = of_key
  end
  local args = of_key[command]
  if not args then
    args = { command = command, key = key }
    of_key[command] = args
    order[#order + 1] = args
  end
  return args
end
local function gather(command, key, first, second)
  local args = collected(command, key)
  args[#args + 1] = first
  if second then args[#args + 1] = second end
end

-- Changed jobs, by new state, are published for watchers. A message is a hint and may be lost.
local changed = {}
local function tell(word, id)
  local ids = changed[word] or {}
  changed[word] = ids
  ids[#ids + 1] = id
end

local function flush()
  for _, args in ipairs(order) do
    for first = 1, #args, 1000 do
      call(args.command, args.key, unpack(args, first, math.min(first + 999, #args)))
    end
  end
  gathered, order = {}, {}
  for word, ids in pairs(changed) do redis.pcall('PUBLISH', CHANGES, word .. ' ' .. table.concat(ids, ' ')) end
  changed = {}
end

-- Reads the fields that every verb needs; nil when there is no such job. An absent field is false.
local FIELDS = {
  'kind', 'queue', 'priority', 'state', 'parent', 'token', 'settled', 'attempts', 'crashes', 'crashes_total',
  'items_total', 'then', 'lost',
}
local LABEL, COUNT = '^[a-z0-9][a-z0-9._-]*$', '^%d+$'
local COUNTS = { 'token', 'attempts', 'crashes', 'crashes_total', 'items_total' }
local PRIORITIES = { high = true, normal = true, low = true }
local STATES = { waiting = true, scheduled = true, retrying = true, completed = true, failed = true, cancelled = true }
local labels = {} -- names that were found valid
local function is_label(name)
  if labels[name] == nil then labels[name] = #name <= 64 and string.find(name, LABEL) ~= nil end
  return labels[name]
end
-- The first invalid field of a record; nil when all are valid.
local function damaged(job)
  if not (job.kind and job.queue) then return 'kind or queue is missing' end
  if not is_label(job.kind) then return 'kind is not what it must be' end
  if not is_label(job.queue) then return 'queue is not what it must be' end
  for i = 1, #COUNTS do
    local field = COUNTS[i]
    local value = job[field]
    -- Integers of 15 digits are exact, in Lua and in Redis. Tokens have 16, and are at most TOKEN_MAX.
    if value and (#value > (field == 'token' and 16 or 15) or not string.find(value, COUNT)) then
      return field .. ' is not what it must be'
    end
  end
  job.priority = job.priority or 'normal'
  if not PRIORITIES[job.priority] then return 'priority is unknown' end
  if job.state and not STATES[job.state] then return 'state is unknown' end
end
local function read(id)
  local key = job_key(id)
  local values = redis.pcall('HMGET', key, unpack(FIELDS))
  if values.err then
    set_aside(key, 'WRONGTYPE')
    return nil
  end
  local job = { id = id, key = key }
  for i, field in ipairs(FIELDS) do job[field] = values[i] end
  local fault = damaged(job)
  if fault then
    if redis.call('EXISTS', key) == 1 then set_aside(key, fault, job.parent) end
    return nil
  end
  -- A parent is queued only to run its `then` over the finished items.
  job.runs = job.items_total and job['then'] or job.kind
  return job
end

-- Adds the fields that the record of a new job has only if they are not the usual ones.
local function add_unusual(row, job)
  if RECORD_VERSION > 1 then row[#row + 1], row[#row + 2] = 'version', RECORD_VERSION end
  if job.priority ~= 'normal' then row[#row + 1], row[#row + 2] = 'priority', job.priority end
end

-- The running record `<token> <worker> <started_at> <kind> <parent> <permit> <again>` holds what a settle must know, so
-- that it need not read the job: the job's kind, its batch, the kind of which it holds a permit (`-`: none), and 1 if
-- it has been claimed before. 0.1 wrote only the first three, and the permit.
local RECORD = '^(%d+) (%S+) (%d+) (%S+) (%S+) (%S+) ([01])$'
local function record_of(text)
  if not text then return nil end
  local token, worker, started_at, kind, parent, permit, again = string.match(text, RECORD)
  if not token then
    token, worker, started_at, permit = string.match(text, '^(%d+) (%S+) (%d+) ?(%S*)$')
    if not token then return nil end
    if permit == '' then permit = nil end
    return { token = token, worker = worker, started_at = started_at, permit = permit }
  end
  return {
    token = token, worker = worker, started_at = started_at, kind = kind, parent = parent ~= '-' and parent or nil,
    permit = permit ~= '-' and permit or nil, again = again == '1',
  }
end
local function running(id) return record_of(call('HGET', RUNNING, id)) end

-- Puts a queued job in its list. Only a job that was claimed or popped before goes to the front.
local filled = {} -- queues that this script has pushed to: LLEN does not include collected commands
local function push(job, front)
  local own = queue_key(job.queue)
  local list = own
  if tonumber(job.crashes or 0) > 0 then
    list = own .. ':suspect'
    gather('SADD', QUEUES, job.queue)
  else
    -- An idle worker blocks on the queue's own list only, so the first job of an empty queue goes there.
    if job.priority ~= 'normal' and (filled[own] or
      call('LLEN', own) + call('LLEN', own .. ':high') + call('LLEN', own .. ':low') > 0) then
      list = own .. ':' .. job.priority
    end
    -- A sweep may have dropped the name of a queue that was empty.
    if not filled[own] then gather('SADD', QUEUES, job.queue) end
    filled[own] = true
  end
  if front then call('RPUSH', list, job.id) else gather('LPUSH', list, job.id) end
end

-- Removes a job from all keys of running jobs.
local function stop_running(job_id, record)
  gather('ZREM', LEASES, job_id)
  gather('HDEL', RUNNING, job_id)
  gather('SREM', CANCELLING, job_id)
  if record and record.permit then gather('SREM', permits_key(record.permit), job_id) end
end

-- Removes an ended job from where ended jobs are listed: it was requeued, or is being removed.
local function unlist(job)
  if job.parent then
    gather('ZREM', ended_key('items', job.kind, job.state), job.id)
  else
    gather('ZREM', ended_key('finished', job.kind, job.state), job.id)
    gather('ZREM', ended_key('imported', job.kind, job.state), job.id)
    gather('ZREM', EXPIRY, job.id)
  end
end

-- Adds an entry to the job's history: attempts, phases and interventions. An uneventful job has none.
local function note(id, event, fields)
  local key = history_key(id)
  fields.at, fields.event = now, event
  call('RPUSH', key, cjson.encode(fields))
  call('LTRIM', key, -HISTORY_MAX, -1)
end

-- Adds an entry about a run, with its start: a reader derives the claim, which has no entry, from the first of them.
local function note_run(job, record, event, fields)
  fields.worker, fields.attempt = record.worker, tonumber(job.attempts or 0) + 1
  fields.started_at = tonumber(record.started_at)
  note(job.id, event, fields)
end
