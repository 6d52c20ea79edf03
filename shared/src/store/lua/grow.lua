-- The two steps of a growth of the number of partitions, in `lh:meta`. Each changes nothing when it is repeated.
-- KEYS: `lh:meta`. ARGV: step, to, now, from, past.
-- announce: `to` is announced. Returns: {announced} | {growing, to} | {fewer, partitions} | {missing}
-- activate: `to` is in force from now on. Returns: {active} | {over}: that growth is not announced, or no longer.
-- restore: Redis has lost the growth from `from` to `to`, after which `past` were the earlier numbers. Returns:
--   {restored} | {over}
local step, to, now, from, past_of_to = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local partitions, past, growing =
  unpack(redis.call('HMGET', KEYS[1], 'partitions', 'partitions_past', 'partitions_growing'))
if not partitions then return { 'missing' } end
if step == 'restore' then
  if partitions ~= from then return { 'over' } end
  redis.call('HSET', KEYS[1], 'partitions', to, 'partitions_past', past_of_to, 'partitions_grown_at', now)
  return { 'restored' }
end
if step == 'activate' then
  if growing ~= to then return { 'over' } end
  redis.call('HSET', KEYS[1], 'partitions', to, 'partitions_past', past and past .. ' ' .. partitions or partitions,
    'partitions_grown_at', now)
  redis.call('HDEL', KEYS[1], 'partitions_growing')
  return { 'active' }
end
if growing and growing ~= to then return { 'growing', growing } end
if tonumber(to) <= tonumber(partitions) then return { 'fewer', partitions } end
redis.call('HSET', KEYS[1], 'partitions_growing', to)
return { 'announced' }
