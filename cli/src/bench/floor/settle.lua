-- The floor's settle: jobs complete with their results, if their worker still holds them under the same token and
-- nothing has cancelled them.
-- ARGV: worker, then id, token, result, …
-- Returns: for each job completed | stale | slow (cancelled or gone)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local worker = ARGV[1]
local ids, keys = {}, {}
for i = 2, #ARGV, 3 do
  ids[#ids + 1] = ARGV[i]
  keys[#keys + 1] = 'fl:{0}:job:' .. ARGV[i]
end
local running = redis.call('HMGET', 'fl:{0}:running', unpack(ids))
local flags = redis.call('EXISTS', 'fl:{0}:cancelling') == 1
  and redis.call('SMISMEMBER', 'fl:{0}:cancelling', unpack(ids))
local whole = redis.call('EXISTS', unpack(keys)) == #keys
local completed, by_kind, reply = {}, {}, {}
for at, id in ipairs(ids) do
  local token, holder, started_at, kind = string.match(running[at] or '', '^(%d+) (%S+) (%d+) (%S+)')
  if token ~= ARGV[3 * at] or holder ~= worker then
    reply[at] = 'stale'
  elseif (flags and flags[at] == 1) or (not whole and redis.call('EXISTS', keys[at]) == 0) then
    reply[at] = 'slow'
  else
    redis.call('HSET', keys[at], 'state', 'completed', 'result', ARGV[3 * at + 1], 'finished_at', now, 'token', token,
      'worker', holder, 'started_at', started_at)
    completed[#completed + 1] = id
    local ended = by_kind[kind] or {}
    by_kind[kind] = ended
    ended[#ended + 1] = now
    ended[#ended + 1] = id
    reply[at] = 'completed'
  end
end
if #completed > 0 then
  redis.call('ZREM', 'fl:{0}:leases', unpack(completed))
  redis.call('HDEL', 'fl:{0}:running', unpack(completed))
  for kind, ended in pairs(by_kind) do redis.call('ZADD', 'fl:{0}:finished:' .. kind .. ':completed', unpack(ended)) end
  redis.call('PUBLISH', 'fl:{0}:changes', 'completed ' .. table.concat(completed, ' '))
end
return reply
