-- Included by what makes new jobs: submit and tick.

-- Whether a name is known (1), or there is room for another (0); nil when there is none. Names that an operator has
-- configured do not count: nobody can use up their room.
local function known(set, sort, name)
  if call('SISMEMBER', set, name) == 1 then return 1 end
  local fits = call('SCARD', set) < NAMES_MAX or call('SISMEMBER', RESERVED, sort .. ' ' .. name) == 1
  return fits and 0 or nil
end

-- A form is what many jobs have in common, as words: kind, queue, priority, due (`-`; `+ms` from now; or ms), begins
-- (`-`; `parent`; or how it had ended: completed, skipped, failed, cancelled, and `:ms` if the time is known),
-- created_at (`-`: now; or ms), keyed (1: with an Idempotency-Key; else 0), and the names of its further fields.
-- As a table: `row` has the names and values of the record's fields, of which those of `places` differ from job
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

