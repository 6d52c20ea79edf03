-- Writes new and imported jobs, each at most once: a known id or Idempotency-Key changes nothing.
-- Transition: submit import
-- KEYS: the partition. ARGV: now, idempotency_ms, partitions (by which the caller places keys; 0: it only
--   replays), n, then for each job: id, form, key and digest (if the form says so), the values of the form's fields.
--   Forms: see create.lua.
-- Returns, for each: created_at (it is queued) | {queued|waiting|completed|failed|cancelled, id, created_at} |
--   {scheduled, id, created_at, due} | {exists|replayed|conflict|gone, id} | {names, kind|queue} | {grown}: the
--   partitions have grown, and a new key belongs elsewhere
local idempotency_ms, partitions, n = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

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

local ids, keys, of_job, firsts, at = {}, {}, {}, {}, 5
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
