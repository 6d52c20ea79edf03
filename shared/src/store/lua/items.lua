-- Adds a part of a batch's items to its unsealed parent. Items already added are skipped, so a part sent twice changes
-- nothing. The last part seals the parent.
-- Transition: submit import finish
-- KEYS: the partition. ARGV: now, parent, first (number of the first item), last (1 seals), ended (how the parent had
--   ended in the store that it comes from: completed, failed, cancelled, with `:ms`; else empty), error (JSON of that, or
--   empty), n, then for each: id, ended (the same of the item, or skipped), n_fields, field, value, …
-- Returns: {added, total} | {gap, total} | {sealed, total} | {taken, id of an item that is another job} | {childless} |
--   {missing}
local parent_id, first, last, ended, failure = ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1', ARGV[5], ARGV[6]
local n = tonumber(ARGV[7])

local parent = read(parent_id)
if not parent then return { 'missing' } end
if not parent.items_total then return { 'childless' } end
local total = tonumber(parent.items_total)
local v = call('HMGET', parent.key, 'sealed', 'max_attempts', 'timeout_ms')
if first > total or (last and first + n < total) then return { 'gap', total } end
-- guard: unsealed
if v[1] and first + n > total then return { 'sealed', total } end
if v[1] then return { 'added', total } end

-- guard: numbered (those already in are passed over)
local items, keys, at = {}, {}, 8
for k = first, first + n - 1 do
  local item = { id = ARGV[at], key = job_key(ARGV[at]), number = k, ended = ARGV[at + 1], first = at + 3 }
  at = item.first + 2 * tonumber(ARGV[at + 2])
  item.last = at - 1
  if k >= total then
    items[#items + 1], keys[#keys + 1] = item, item.key
  end
end
for first_key = 1, #keys, 1000 do
  if redis.call('EXISTS', unpack(keys, first_key, math.min(first_key + 999, #keys))) > 0 then
    for _, item in ipairs(items) do
      if redis.call('EXISTS', item.key) == 1 then return { 'taken', item.id } end
    end
  end
end

local unusual = v[3] and { 'timeout_ms', v[3] } or {}
add_unusual(unusual, parent)
for _, item in ipairs(items) do
  item.kind, item.queue, item.priority, item.parent = parent.kind, parent.queue, parent.priority, parent_id
  redis.call('HSET', item.key, 'kind', parent.kind, 'queue', parent.queue, 'created_at', now_text, 'parent', parent_id,
    'item', tostring(item.number), 'max_attempts', v[2], unpack(ARGV, item.first, item.last))
  if #unusual > 0 then redis.call('HSET', item.key, unpack(unusual)) end
  if item.ended == '' then
    push(item)
    tell('queued', item.id)
  else
    local state, ended_at = ending(item.ended)
    item.ended_at = ended_at
    local skipped = state == 'skipped'
    end_job(item, skipped and 'completed' or state, skipped)
  end
end
total = math.max(total, first + n)
redis.call('HSET', parent.key, 'items_total', total)
if last then
  redis.call('HSET', parent.key, 'sealed', 1)
  call('ZREM', OPEN, parent_id)
  if failure ~= '' then redis.call('HSET', parent.key, 'error', failure) end
  parents[parent_id] = ended == '' or ended
else
  call('ZADD', OPEN, now + OPEN_MS, parent_id)
  tell('items', parent_id)
end
finish()
return { 'added', total }
