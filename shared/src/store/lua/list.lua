-- A page of a sorted set after a cursor: newest first, or soonest first.
-- KEYS: the partition. ARGV: now, suffix of the set's key, order (newest | soonest), score and id of the cursor (or
--   empty), limit
-- Returns: {id, score, id, score, …}
return page_of(P .. ':' .. ARGV[2], ARGV[3] == 'newest', ARGV[4], ARGV[5], tonumber(ARGV[6]))
