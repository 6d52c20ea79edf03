-- Writes new and imported jobs, each at most once: a known id or Idempotency-Key changes nothing.
-- Transition: submit import
-- KEYS: the partition. ARGV: now, names_max, idempotency_ms, partitions (by which the caller places keys; 0: it only
--   replays), n, then for each job: id, form, key and digest (if the form says so), the values of the form's fields.
--   A form is what many jobs have in common, as words: kind, queue, priority, due (`-`; `+ms` from now; or ms), begins
--   (`-`; `parent`; or how it had ended: completed, skipped, failed, cancelled, and `:ms` if the time is known),
--   created_at (`-`: now; or ms), keyed (1: with an Idempotency-Key; else 0), and the names of its further fields.
-- Returns, for each: created_at (it is queued) | {queued|waiting|completed|failed|cancelled, id, created_at} |
--   {scheduled, id, created_at, due} | {exists|replayed|conflict|gone, id} | {names, kind|queue} | {grown}: the
--   partitions have grown, and a new key belongs elsewhere
local names_max, idempotency_ms, partitions, n = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])

-- Whether a name is known (1), or there is room for another (0); nil when there is none. Names that an operator has
-- configured do not count: nobody can use up their room.
local function known(set, sort, name)
  if call('SISMEMBER', set, name) == 1 then return 1 end
  local fits = call('SCARD', set) < names_max or call('SISMEMBER', RESERVED, sort .. ' ' .. name) == 1
  return fits and 0 or nil
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

-- A form as a table: `row` has the names and values of the record's fields, of which those of `places` differ from job
-- to job. `plain`: its jobs are queued at once, as nearly all are.
local forms = {}
local function form_of(text)
  local words = {}
  for word in string.gmatch(text, '%S+') do words[#words + 1] = word end
  local form = {
    kind = words[1], queue = words[2], priority = words[3], due = words[4], begins = words[5],
    imported = words[6] ~= '-', created_at = words[6] ~= '-' and words[6] or now_text, keyed = words[7] == '1',
    places = {},
  }
  local row = { 'kind', form.kind, 'queue', form.queue, 'created_at', form.created_at }
  for i = 8, #words do
    form.places[i - 7] = #row + 2
    row[#row + 1], row[#row + 2] = words[i], ''
  end
  add_unusual(row, form)
  form.row = row
  form.plain = form.due == '-' and form.begins == '-' and form.priority == 'normal' and not form.keyed
  forms[text] = form
  return form
end

-- Writes the record of a job. `first`: where the values of its fields begin.
local function write(key, form, first)
  local row, places = form.row, form.places
  for i = 1, #places do row[places[i]] = ARGV[first + i - 1] end
  redis.call('HSET', key, unpack(row))
end

local function due_at(due)
  if due == '-' then return now end
  if string.sub(due, 1, 1) == '+' then return now + tonumber(string.sub(due, 2)) end
  return tonumber(due)
end

local function create(id, key, form, first)
  local job = { id = id, key = key, kind = form.kind, queue = form.queue, priority = form.priority }
  local at, begins, state, ends = due_at(form.due), form.begins, nil, nil
  if begins == 'parent' then
    state = 'waiting'
    gather('ZADD', WAITING, form.created_at, id)
    gather('ZADD', OPEN, now + OPEN_MS, id)
  elseif begins ~= '-' then
    ends, job.ended_at = ending(begins)
    if ends == 'skipped' then ends = 'completed' end
  elseif at > now then
    state = 'scheduled'
    gather('ZADD', SCHEDULED, at, id)
  else
    push(job)
  end
  write(key, form, first)
  if state then redis.call('HSET', key, 'state', state) end
  if state == 'scheduled' then
    redis.call('HSET', key, 'scheduled_at', at)
    if string.sub(form.due, 1, 1) == '+' then redis.call('HSET', key, 'delay_ms', at - now) end
  end
  gather('ZADD', kind_key(form.kind), form.created_at, id)
  if ends then end_job(job, ends) else tell(state or 'queued', id) end
  return { ends or state or 'queued', id, form.created_at, state == 'scheduled' and at or nil }
end

-- The lists to which the jobs of a plain form are added: its queue, its kind's index, and what is published.
local function open_lists(form)
  local own = queue_key(form.queue)
  filled[own] = true
  changed.queued = changed.queued or {}
  form.list, form.index, form.told = collected('LPUSH', own), collected('ZADD', kind_key(form.kind)), changed.queued
end

-- [`create`] for a plain form.
local function create_plain(id, key, form, first)
  if not form.list then open_lists(form) end
  local list, index, told = form.list, form.index, form.told
  write(key, form, first)
  list[#list + 1] = id
  local n = #index
  index[n + 1], index[n + 2] = form.created_at, id
  told[#told + 1] = id
  return form.created_at
end

-- The refusal of a form whose kind or queue would be one name too many; nil for any other.
local function no_room(form)
  if form.fits then return nil end
  local kind, queue = known(KINDS, 'kind', form.kind), known(QUEUES, 'queue', form.queue)
  if not kind then return { 'names', 'kind' } end
  if not queue then return { 'names', 'queue' } end
  if kind == 0 then redis.call('SADD', KINDS, form.kind) end
  if queue == 0 then redis.call('SADD', QUEUES, form.queue) end
  form.fits = true
end

local ids, keys, of_job, firsts, at = {}, {}, {}, {}, 6
for i = 1, n do
  local id, text = ARGV[at], ARGV[at + 1]
  local form = forms[text] or form_of(text)
  ids[i], keys[i], of_job[i] = id, job_key(id), form
  firsts[i] = at + (form.keyed and 4 or 2)
  at = firsts[i] + #form.places
end
keys[n + 1] = GONE
local some_exist = call('EXISTS', unpack(keys)) > 0
local made = {}

-- A job that was just removed counts too, for its submit may be repeated after a lost reply; but an import may bring it
-- back.
local function exists(id, key, imported)
  return redis.call('EXISTS', key) == 1 or not imported and tonumber(call('ZSCORE', GONE, id) or 0) > now
end

local replies = {}
for i = 1, n do
  local id, key, form, first = ids[i], keys[i], of_job[i], firsts[i]
  local reply
  if form.keyed then reply = replay(form.kind, ARGV[first - 2], ARGV[first - 1]) end
  -- guard: once
  if not reply and (made[id] or some_exist and exists(id, key, form.imported)) then reply = { 'exists', id } end
  if not reply and form.keyed and has_grown() then reply = { 'grown' } end
  reply = reply or no_room(form)
  if not reply then
    made[id] = true
    reply = form.plain and create_plain(id, key, form, first) or create(id, key, form, first)
    if form.keyed then
      local kept = idempotency_key(form.kind, ARGV[first - 2])
      redis.call('SET', kept, ARGV[first - 1] .. ' ' .. id, 'PX', idempotency_ms)
    end
  end
  replies[i] = reply
end
flush()
return replies
