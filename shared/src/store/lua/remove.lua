-- Removes final jobs: the given ids, or (prune) those whose retention has passed.
-- Transition: remove prune
-- KEYS: the partition. ARGV: now, limit of a prune, kind under whose index the ids were found (or empty), ids…
-- Returns: {ids of removed jobs whose files are to be deleted, answers}; for each: removed |
--   removing (a cascade removes its items first) | item (removed with its parent only) |
--   refused (not final) | missing
local kind, ids = ARGV[3] ~= '' and ARGV[3] or nil, {}
for i = 4, #ARGV do ids[i - 3] = ARGV[i] end
if #ids == 0 then ids = call('ZRANGEBYSCORE', EXPIRY, '-inf', unskipped(), 'LIMIT', 0, tonumber(ARGV[2])) end
local answers = {}
for i, id in ipairs(ids) do answers[i] = remove_one(id, kind) end
flush()
return { with_files, answers }
