-- Included by list and finished.
--
-- A page of a sorted set after a cursor (score and id, or both empty), newest or soonest first:
-- {id, score, id, score, …}.
local function page_of(key, newest, score, id, limit)
  local way = newest and { 'REV', 'WITHSCORES' } or { 'WITHSCORES' }
  if score == '' then return look('ZRANGE', key, 0, limit - 1, unpack(way)) or {} end
  local rank = look('ZSCORE', key, id) == score and redis.call(newest and 'ZREVRANK' or 'ZRANK', key, id)
  if rank then return redis.call('ZRANGE', key, rank + 1, rank + limit, unpack(way)) end
  -- The cursor's job has moved: continue at its score, after the ids that sort before it.
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
end
