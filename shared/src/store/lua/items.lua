-- Adds a part of a batch's items to its unsealed parent; those already in are passed over, so a part sent twice changes
-- nothing. The last part seals the parent.
-- Transition: submit finish
-- KEYS: the partition. ARGV: now, parent, first (number of the first item), last (1 seals), n, then id, payload of each
-- Returns: {added, total} | {gap, total} | {sealed, total} | {childless} | {missing}
local parent_id, first, last, n = ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1', tonumber(ARGV[5])

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
for k = math.max(first, total), first + n - 1 do
  local at = 6 + 2 * (k - first)
  local item = { id = ARGV[at], queue = parent.queue, priority = parent.priority }
  local fields = { 'version', RECORD_VERSION, 'kind', parent.kind, 'queue', parent.queue, 'priority', parent.priority,
    'created_at', now, 'parent', parent_id, 'item', k, 'payload', ARGV[at + 1], 'max_attempts', v[2] }
  if v[3] then fields[#fields + 1], fields[#fields + 2] = 'timeout_ms', v[3] end
  redis.call('HSET', job_key(item.id), unpack(fields))
  push(item)
  tell('queued', item.id)
end
total = math.max(total, first + n)
redis.call('HSET', parent.key, 'items_total', total)
if last then
  redis.call('HSET', parent.key, 'sealed', 1)
  call('ZREM', OPEN, parent_id)
  parents[parent_id] = true
else
  call('ZADD', OPEN, now + OPEN_MS, parent_id)
  tell('items', parent_id)
end
finish()
return { 'added', total }
