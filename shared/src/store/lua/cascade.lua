-- Bounded steps of the cancels, retries and removals of parents over their items. Any sweeper may run them: a step that
-- was already run changes nothing.
-- Transition: cancel retry remove finish
-- KEYS: the partition. ARGV: now, n, then for each: parent, verb, from (number of the first item), n_items, ids of the
--   items from there…
-- Returns: {ids of removed jobs whose files are to be deleted, {moved (not at this step) | more | done | ended (done,
--   and so is the parent), for each}}

-- The hash in which a step stands. Removals of 0.1 stand in `cascades`.
local function place_of(parent_id, verb, from)
  local step = '^' .. verb .. ' ' .. from .. '%f[^%d]'
  for _, place in ipairs(verb == 'remove' and { REMOVALS, CASCADES } or { CASCADES }) do
    if string.find(call('HGET', place, parent_id) or '', step) then return place end
  end
end

local function visit(parent, verb, id, number)
  local item = read(id)
  if not item then
    -- A cancel ends whatever is left of the batch.
    if verb == 'cancel' then lose_one(id, parent, number, 'cancelled') end
  elseif verb == 'cancel' then
    cancel_one(id, true)
  elseif verb == 'retry' and not item.lost and (item.state == 'failed' or item.state == 'cancelled') then
    requeue(item)
  elseif verb == 'remove' and item.state then
    erase(item)
  end
end

local function finish_cascade(place, parent, verb)
  call('HDEL', place, parent.id)
  if verb == 'remove' and parent.state then
    erase(parent)
    return 'ended'
  end
  finish_parent(parent.id, true)
  parents[parent.id] = nil
  tell('items', parent.id)
  local state = call('HGET', parent.key, 'state')
  return (state == 'completed' or state == 'failed' or state == 'cancelled') and 'ended' or 'done'
end

local function step(parent_id, verb, from, first, last)
  -- guard: standing
  local place = place_of(parent_id, verb, from)
  if not place then return 'moved' end
  local parent = read(parent_id)
  if not parent then
    call('HDEL', place, parent_id)
    return 'done'
  end
  for i = first, last do visit(parent, verb, ARGV[i], from + i - first) end
  local next_item = from + last - first + 1
  if next_item >= tonumber(parent.items_total or 0) then return finish_cascade(place, parent, verb) end
  local since = string.match(call('HGET', place, parent_id), '^%a+ %d+ (%d+)$') or now
  call('HSET', place, parent_id, verb .. ' ' .. next_item .. ' ' .. since)
  return 'more'
end

local answers, at = {}, 3
for i = 1, tonumber(ARGV[2]) do
  local last = at + 3 + tonumber(ARGV[at + 3])
  answers[i] = step(ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), at + 4, last)
  at = last + 1
end
finish()
return { with_files, answers }
