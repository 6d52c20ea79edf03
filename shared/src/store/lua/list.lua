-- A page of a sorted set, from after a cursor: newest first, or soonest first.
-- KEYS: the partition. ARGV: now, suffix of the set's key, order (newest | soonest), score and id of the cursor (or
--   empty), limit
-- Returns: {id, score, id, score, …}
local key, newest, score, id, limit = P .. ':' .. ARGV[2], ARGV[3] == 'newest', ARGV[4], ARGV[5], tonumber(ARGV[6])
if score == '' then
  return look('ZRANGE', key, 0, limit - 1, unpack(newest and { 'REV', 'WITHSCORES' } or { 'WITHSCORES' })) or {}
end
local rank = look('ZSCORE', key, id) == score and redis.call(newest and 'ZREVRANK' or 'ZRANK', key, id)
if rank then
  local last = rank + limit
  return redis.call('ZRANGE', key, rank + 1, last, unpack(newest and { 'REV', 'WITHSCORES' } or { 'WITHSCORES' }))
end
-- The cursor's job has moved: go on at its score, past the ids that sort before it.
local page, offset = {}, 0
repeat
  local part = newest and look('ZRANGE', key, score, '-inf', 'BYSCORE', 'REV', 'LIMIT', offset, 1000, 'WITHSCORES')
    or look('ZRANGE', key, score, '+inf', 'BYSCORE', 'LIMIT', offset, 1000, 'WITHSCORES') or {}
  for i = 1, #part, 2 do
    local passed = part[i + 1] == score and (newest and part[i] >= id or not newest and part[i] <= id)
    if not passed and #page < 2 * limit then page[#page + 1], page[#page + 2] = part[i], part[i + 1] end
  end
  offset = offset + 1000
until #page >= 2 * limit or #part < 2000 or offset >= 10000
return page
