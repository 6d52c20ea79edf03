-- The floor's claim: jobs for free slots, each with a token and a lease; a repeated request gets the same jobs.
-- ARGV: slots, worker, number of the request
-- Returns: {claimed, {id, token, fields of the job…}…} | {empty} | {again, ids}
local slots, worker, request = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local worker_key = 'fl:{0}:worker:' .. worker
if redis.call('HGET', worker_key, 'request') == request then
  return { 'again', redis.call('HGET', worker_key, 'claimed') }
end
local ids = redis.call('RPOP', 'fl:{0}:queue:default', slots)
if not ids then return { 'empty' } end
local running = redis.call('HMGET', 'fl:{0}:running', unpack(ids))
local token = redis.call('INCRBY', 'fl:{0}:tokens', #ids) - #ids
local leases, records, reply, claimed, seen = {}, {}, { 'claimed' }, {}, {}
for at, id in ipairs(ids) do
  local job = redis.call('HMGET', 'fl:{0}:job:' .. id, 'kind', 'payload', 'state', 'attempts', 'max_attempts',
    'timeout_ms', 'crashes', 'created_at', 'parent', 'version', 'checkpoint', 'queue')
  -- It exists, has not ended, and nobody runs it.
  if job[1] and not job[3] and not running[at] and not seen[id] then
    seen[id] = true
    local own = string.format('%.0f', token + at)
    leases[#leases + 1] = now + 30000
    leases[#leases + 1] = id
    records[#records + 1] = id
    records[#records + 1] = own .. ' ' .. worker .. ' ' .. string.format('%.0f', now) .. ' ' .. job[1] .. ' '
      .. (job[9] or '')
    claimed[#claimed + 1] = id
    reply[#reply + 1] = { id, own, unpack(job, 1, 12) }
  end
end
if #claimed > 0 then
  redis.call('ZADD', 'fl:{0}:leases', unpack(leases))
  redis.call('HSET', 'fl:{0}:running', unpack(records))
  redis.call('HSET', worker_key, 'request', request, 'claimed', table.concat(claimed, ' '))
  redis.call('PUBLISH', 'fl:{0}:changes', 'running ' .. table.concat(claimed, ' '))
end
return reply
