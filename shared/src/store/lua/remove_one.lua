-- Included by remove, prune and cascade.
local function erase(job)
  redis.call('DEL', job.key, history_key(job.id))
  gather('ZREM', P .. ':' .. job.state, job.id)
  gather('ZREM', EXPIRY, job.id)
  gather('ZREM', kind_key(job.kind), job.id)
  tell('removed', job.id)
  return 'removed'
end

local function remove_one(id)
  local job = read(id)
  if not job then
    gather('ZREM', EXPIRY, id)
    return 'missing'
  end
  local final = job.state == 'completed' or job.state == 'failed' or job.state == 'cancelled'
  if job.parent or not final then
    gather('ZREM', EXPIRY, id)
    return job.parent and 'item' or 'refused'
  end
  if tonumber(job.items_total or 0) == 0 then return erase(job) end
  call('HSETNX', CASCADES, id, 'remove 0')
  gather('ZREM', EXPIRY, id)
  return 'removing'
end
