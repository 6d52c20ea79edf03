-- Puts one job's id in the place that its record requires, and removes it from all others. The id of a missing job is
-- removed everywhere.
-- KEYS: the partition. ARGV: now, id, listed (0: the caller found it in no list), n, then kinds under whose indexes or
--   permits it was found, then workers in whose claimed lists
-- Returns: repaired | missing
local id, listed, n = ARGV[2], ARGV[3] == '1', tonumber(ARGV[4])
local PLACES = { scheduled = SCHEDULED, retrying = RETRYING, waiting = WAITING }
local job, record = read(id), running(id)
local state = job and job.state
local runs = job and record and not state
local final = state == 'completed' or state == 'failed' or state == 'cancelled'
if job and job.parent and redis.call('EXISTS', job_key(job.parent)) == 0 then
  -- Its batch does not exist: it runs and is pruned as a single job.
  redis.call('HDEL', job.key, 'parent', 'item')
  if runs then
    local words = { record.token, record.worker, record.started_at, job.kind, '-', record.permit or '-', '1' }
    call('HSET', RUNNING, id, table.concat(words, ' '))
  end
  job.parent = false
end

-- Where an ended job belongs; nil when it is being removed.
local function place_of_end()
  if not final or call('HEXISTS', CASCADES, id) + call('HEXISTS', REMOVALS, id) > 0 then return nil end
  if job.parent then return ended_key('items', job.kind, state) end
  local finished, imported = ended_key('finished', job.kind, state), ended_key('imported', job.kind, state)
  if call('ZSCORE', finished, id) then return finished end
  -- An imported job may have ended long ago: by its end alone it would be pruned at once.
  local kept_on = call('ZSCORE', imported, id) or call('ZSCORE', EXPIRY, id)
    or call('HEXISTS', job.key, 'imported') == 1
  return kept_on and imported or finished, kept_on
end
local ended_place, is_imported = place_of_end()

local function leave_ends(kind)
  for _, of in ipairs(FINAL) do
    for _, place in ipairs(ENDED) do
      local key = ended_key(place, kind, of)
      if key ~= ended_place then call('ZREM', key, id) end
    end
  end
end
for name, place in pairs(PLACES) do
  if name ~= state then call('ZREM', place, id) end
end
if not runs then
  if record and record.permit then call('SREM', permits_key(record.permit), id) end
  call('HDEL', RUNNING, id)
  call('ZREM', LEASES, id)
  if state ~= 'waiting' then call('SREM', CANCELLING, id) end
end
local unsealed = state == 'waiting' and call('HEXISTS', job.key, 'sealed') == 0
if not unsealed then call('ZREM', OPEN, id) end
for i = 5, 4 + n do
  if not job or job.parent or job.kind ~= ARGV[i] then call('ZREM', kind_key(ARGV[i]), id) end
  leave_ends(ARGV[i])
  if not (runs and record.permit == ARGV[i]) then call('SREM', permits_key(ARGV[i]), id) end
end
for i = 5 + n, #ARGV do call('LREM', claimed_key(ARGV[i]), 0, id) end
if job and not runs then call('SREM', permits_key(job.runs), id) end
if job then leave_ends(job.kind) end
if not is_imported then call('ZREM', EXPIRY, id) end
if not job then
  redis.call('DEL', history_key(id))
  return 'missing'
end

call('SADD', KINDS, job.kind)
call('SADD', QUEUES, job.queue)
local v = redis.call('HMGET', job.key, 'created_at', 'scheduled_at', 'finished_at')
local created = tonumber(v[1]) or now
if final then
  if ended_place then call('ZADD', ended_place, 'NX', tonumber(v[3]) or now, id) end
  if is_imported then call('ZADD', EXPIRY, 'NX', now + retention(job.kind, state), id) end
elseif state then
  local due = { scheduled = tonumber(v[2]) or now, retrying = now, waiting = created }
  call('ZADD', PLACES[state], 'NX', due[state], id)
  if state == 'waiting' then parents[id] = true end
  if unsealed then call('ZADD', OPEN, 'NX', now + OPEN_MS, id) end
elseif runs then
  -- Its holder, if alive, has one lease in which to renew.
  call('ZADD', LEASES, 'NX', now + (tonumber(call('HGET', CLOCK, 'lease_max_ms')) or 0), id)
  if record.permit then call('SADD', permits_key(record.permit), id) end
elseif not listed then
  push(job)
end
if not job.parent then call('ZADD', kind_key(job.kind), 'NX', created, id) end
finish()
return 'repaired'
