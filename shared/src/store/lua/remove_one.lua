-- Included by remove, prune and cascade.
local with_files = {} -- ids of removed jobs that had files, which the caller deletes
local function erase(job)
  local v = call('HMGET', job.key, 'files', 'output', 'created_at')
  if v[1] or v[2] then with_files[#with_files + 1] = job.id end
  -- Its submit may still be repeated after a lost reply.
  local left = RESENT_MS - math.abs(now - (tonumber(v[3]) or 0))
  if left > 0 and not job.parent then
    call('ZREMRANGEBYSCORE', GONE, '-inf', now)
    call('ZADD', GONE, now + left, job.id)
    call('PEXPIRE', GONE, RESENT_MS)
  end
  redis.call('DEL', job.key, history_key(job.id))
  unlist(job)
  if not job.parent then gather('ZREM', kind_key(job.kind), job.id) end
  tell('removed', job.id)
  return 'removed'
end

-- Removes an id that is listed among the ended jobs of a kind, and should not be.
local function strike(id, kind)
  gather('ZREM', EXPIRY, id)
  for _, state in ipairs(kind and FINAL or {}) do
    gather('ZREM', ended_key('finished', kind, state), id)
    gather('ZREM', ended_key('imported', kind, state), id)
  end
end

-- `kind`: the kind among whose ended jobs the id was found, if known.
local function remove_one(id, kind)
  local job = read(id)
  if not job then
    strike(id, kind)
    return 'missing'
  end
  local final = job.state == 'completed' or job.state == 'failed' or job.state == 'cancelled'
  if job.parent or not final then
    strike(id, kind or job.kind)
    return job.parent and 'item' or 'refused'
  end
  if tonumber(job.items_total or 0) == 0 then return erase(job) end
  call('HSETNX', REMOVALS, id, 'remove 0 ' .. now)
  unlist(job)
  if kind then strike(id, kind) end
  return 'removing'
end
