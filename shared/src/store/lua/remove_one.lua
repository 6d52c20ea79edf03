-- Included by remove, prune and cascade.
local with_files = {} -- ids of removed jobs that had files, which the caller deletes
local function erase(job)
  local v = call('HMGET', job.key, 'files', 'output', 'created_at')
  if v[1] or v[2] then with_files[#with_files + 1] = job.id end
  -- Its submit may still be repeated after a lost reply.
  local left = RESENT_MS - math.abs(now - (tonumber(v[3]) or 0))
  if left > 0 and not job.parent then redis.call('SET', gone_key(job.id), '', 'PX', left) end
  redis.call('DEL', job.key, history_key(job.id))
  gather('ZREM', P .. ':' .. job.state, job.id)
  keep_for_good(job)
  gather('ZREM', kind_key(job.kind), job.id)
  tell('removed', job.id)
  return 'removed'
end

-- `kind`: the kind in whose index the id was found, if known.
local function remove_one(id, kind)
  local job = read(id)
  if not job then
    gather('ZREM', EXPIRY, id)
    if kind then gather('ZREM', finished_key(kind), id) end
    return 'missing'
  end
  local final = job.state == 'completed' or job.state == 'failed' or job.state == 'cancelled'
  if job.parent or not final then
    keep_for_good(job)
    return job.parent and 'item' or 'refused'
  end
  if tonumber(job.items_total or 0) == 0 then return erase(job) end
  call('HSETNX', REMOVALS, id, 'remove 0 ' .. now)
  keep_for_good(job)
  return 'removing'
end
