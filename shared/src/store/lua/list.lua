-- A page of one or several sorted sets after a cursor: newest first, or soonest first.
-- KEYS: the partition. ARGV: now, order (newest | soonest), score and id of the cursor (or empty), limit, suffixes of
--   the sets' keys…
-- Returns: {id, score, id, score, …}
local keys = {}
for i = 6, #ARGV do keys[i - 5] = P .. ':' .. ARGV[i] end
return merged(keys, ARGV[2] == 'newest', ARGV[3], ARGV[4], tonumber(ARGV[5]))
