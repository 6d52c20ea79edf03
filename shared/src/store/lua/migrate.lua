-- Moves ended jobs from the keys of layout 1, where they are listed by state in `completed`, `failed` and `cancelled`,
-- by kind in `finished:<kind>`, and, items excluded, in `expiry` by the time from which they may be pruned. It can be
-- broken off and repeated: a job that is moved has left those keys.
-- KEYS: the partition. ARGV: now, limit
-- Returns: how many entries were moved or dropped; 0: none are left
local limit = tonumber(ARGV[2])
local left = limit

local function move(id, state, at)
  gather('ZREM', P .. ':' .. state, id)
  local job = read(id)
  if not job then
    -- The batch of an item that was set aside has counted it; its place says so.
    local parent = batch_of(id, '', '')
    if parent then gather('ZADD', ended_key('items', parent.kind, state), at, id) end
  elseif job.state == state and job.parent then
    gather('ZADD', ended_key('items', job.kind, state), at, id)
  elseif job.state == state and call('HEXISTS', CASCADES, id) + call('HEXISTS', REMOVALS, id) == 0 then
    local expires = tonumber(call('ZSCORE', EXPIRY, id) or nil)
    -- An imported job is kept longer than its end says, and so is one whose kind has had a longer retention.
    if expires and expires > tonumber(at) + retention(job.kind, state) then
      gather('ZADD', ended_key('imported', job.kind, state), at, id)
    else
      gather('ZADD', ended_key('finished', job.kind, state), at, id)
      gather('ZREM', EXPIRY, id)
    end
  end
  if job then gather('ZREM', P .. ':finished:' .. job.kind, id) end
end

for _, state in ipairs(FINAL) do
  local ids = left > 0 and call('ZRANGE', P .. ':' .. state, 0, left - 1, 'WITHSCORES') or {}
  for i = 1, #ids, 2 do move(ids[i], state, ids[i + 1]) end
  left = left - #ids / 2
end
-- What is left by kind is of no job.
for _, kind in ipairs(left == limit and call('SMEMBERS', KINDS) or {}) do
  local old = P .. ':finished:' .. kind
  local ids = left > 0 and call('ZRANGE', old, 0, left - 1) or {}
  for _, id in ipairs(ids) do gather('ZREM', old, id) end
  left = left - #ids
end
flush()
return limit - left
