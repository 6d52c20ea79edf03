-- Stops or resumes claims from a queue. Allowed on a full Redis: an operator may have to stop what fills it.
-- KEYS: the partition. ARGV: now, pause | resume, queue.
-- Returns: {paused} | {resumed}
local verb, queue = ARGV[2], ARGV[3]
call(verb == 'pause' and 'SADD' or 'SREM', PAUSED, queue)
redis.pcall('PUBLISH', HINTS, verb .. ' ' .. queue)
return { verb == 'pause' and 'paused' or 'resumed' }
