-- One bounded step of a parent's cancel, retry or remove over its items. Any sweeper may run it: a step that was
-- already run changes nothing.
-- Transition: cancel retry remove finish
-- KEYS: the partition. ARGV: now, parent, verb, from (number of the first item), ids of the items from there…
-- Returns: {moved (not at this step) | more | done, ids of removed jobs whose files are to be deleted…}
local parent_id, verb, from = ARGV[2], ARGV[3], tonumber(ARGV[4])
-- guard: standing
if call('HGET', CASCADES, parent_id) ~= verb .. ' ' .. from then return { 'moved' } end
local parent = read(parent_id)
if not parent then
  call('HDEL', CASCADES, parent_id)
  return { 'done' }
end

local function step(id)
  if verb == 'cancel' then return cancel_one(id) end
  local item = read(id)
  if not item then return end
  if verb == 'retry' and (item.state == 'failed' or item.state == 'cancelled') then requeue(item) end
  if verb == 'remove' and item.state then erase(item) end
end

for i = 5, #ARGV do step(ARGV[i]) end
local next_item = from + #ARGV - 4
local done = next_item >= tonumber(parent.items_total or 0)
if done then
  call('HDEL', CASCADES, parent_id)
  if verb == 'remove' and parent.state then erase(parent) else parents[parent_id] = true end
else
  call('HSET', CASCADES, parent_id, verb .. ' ' .. next_item)
end
finish()
return { done and 'done' or 'more', unpack(with_files) }
