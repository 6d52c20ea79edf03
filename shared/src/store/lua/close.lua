-- Closes a partition to new Idempotency-Keys of callers that place them by fewer than `to` partitions. It is never
-- opened again: a process that completes an older growth late changes nothing.
-- KEYS: `lh:{P}:partitions`. ARGV: to.
-- Returns: the number by which it was closed before; 0: none.
local closed = tonumber(redis.call('GET', KEYS[1]) or nil) or 0
if closed < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return closed
