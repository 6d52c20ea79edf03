-- Removes final jobs: the given ids, or (prune) those whose retention has passed.
-- Transition: remove prune
-- KEYS: the partition. ARGV: now, limit of a prune, kind among whose ended jobs the ids were found (or empty), ids…
-- Returns: {ids of removed jobs whose files are to be deleted, answers}; for each: removed |
--   removing (a cascade removes its items first) | item (removed with its parent only) |
--   refused (not final) | missing
local limit, answers = tonumber(ARGV[2]), {}

-- Removes the jobs of a key, from its lowest score to the highest, up to the limit.
local function prune(key, by, kind)
  if #answers >= limit then return end
  for _, id in ipairs(call('ZRANGEBYSCORE', key, '-inf', by, 'LIMIT', 0, limit - #answers)) do
    answers[#answers + 1] = remove_one(id, kind)
  end
end

for i = 4, #ARGV do answers[i - 3] = remove_one(ARGV[i], ARGV[3] ~= '' and ARGV[3] or nil) end
if #ARGV < 4 then
  local by = unskipped()
  prune(EXPIRY, by)
  for _, kind in ipairs(call('SRANDMEMBER', DUE, KINDS_WINDOW)) do
    for _, state in ipairs(FINAL) do prune(ended_key('finished', kind, state), by - retention(kind, state), kind) end
    if #answers < limit then call('SREM', DUE, kind) end
  end
end
flush()
return { with_files, answers }
