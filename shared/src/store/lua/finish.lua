-- Included by every script that can end a job: a job's end and its parent's count change atomically.

local parents = {} -- true, or how it had ended when given by an import
local counts = {} -- how much the counts of a parent's items change
local function count(parent_id, outcome, by)
  local of_parent = counts[parent_id]
  if not of_parent then
    of_parent = {}
    counts[parent_id] = of_parent
  end
  of_parent[outcome] = (of_parent[outcome] or 0) + by
end

local function write_counts()
  for parent_id, outcomes in pairs(counts) do
    local key = job_key(parent_id)
    -- guard: counted (only the script that ends or revives the item changes its parent's count)
    if call('HEXISTS', key, 'items_total') == 1 then
      for outcome, by in pairs(outcomes) do
        local counted = redis.pcall('HINCRBY', key, 'items_' .. outcome, by)
        -- A count that is not a number restarts from zero; `doctor` finds the difference.
        if type(counted) == 'table' then redis.call('HSET', key, 'items_' .. outcome, math.max(by, 0)) end
      end
      parents[parent_id] = parents[parent_id] or true
    end
  end
  counts = {}
end

-- How a job had ended in another store, as `<state>` or `<state>:<ms>`: the state and the time.
local function ending(text)
  local state, at = string.match(text, '^(%a*):?(%d*)$')
  return state or '', math.min(tonumber(at) or now, now)
end

-- Puts a job that has ended in the index. An imported job may have ended long ago, but is kept from now on.
local function index_end(job, state, skipped)
  local place = job.parent and 'items' or job.ended_at and 'imported' or 'finished'
  gather('ZADD', ended_key(place, job.kind, state), job.ended_at or now_text, job.id)
  if job.parent then
    local outcome = state == 'completed' and (skipped and 'skipped' or 'succeeded') or state
    count(job.parent, outcome, 1)
  elseif job.ended_at then
    gather('ZADD', EXPIRY, now + retention(job.kind, state), job.id)
  end
  tell(state, job.id)
end

-- Ends a job that has already been removed from its place. `...` are further fields of its record.
local function end_job(job, state, skipped, ...)
  call('HSET', job.key, 'state', state, 'finished_at', job.ended_at or now, ...)
  index_end(job, state, skipped)
end

-- Reverts what `end_job` wrote, for a retry.
local function revive_job(job)
  redis.call('HDEL', job.key, 'state', 'finished_at', 'result', 'output', 'error', 'skipped', 'attempts', 'crashes',
    'crashes_total')
  -- A repeated settle gets the same answer until the next claim.
  if job.token and not job.settled then redis.call('HSET', job.key, 'settled', job.state) end
  redis.call('HSET', job.key, 'updated_at', now)
  job.crashes = false
  unlist(job)
  -- guard: revived
  if job.parent then count(job.parent, job.state, -1) end
end

-- Transition: finish
-- A waiting parent that is sealed, has no open item and no cascade under way ends, or runs its `then`.
local function finish_parent(id, ends)
  if counts[id] then write_counts() end
  local v = call('HMGET', job_key(id), 'state', 'sealed', 'items_total', 'items_succeeded', 'items_failed',
    'items_skipped', 'items_cancelled')
  local ended = 0
  for i = 4, 7 do ended = ended + (tonumber(v[i]) or 0) end
  -- guard: sealed
  if v[1] ~= 'waiting' or not v[2] or ended < (tonumber(v[3]) or 0) then return end
  -- guard: cascaded
  if call('HEXISTS', CASCADES, id) == 1 then return end
  local parent = read(id)
  if not parent then return end
  call('ZREM', WAITING, id)
  -- guard: flagged
  if call('SREM', CANCELLING, id) == 1 then
    end_job(parent, 'cancelled')
  elseif parent['then'] then
    redis.call('HDEL', parent.key, 'state')
    redis.call('HSET', parent.key, 'updated_at', now)
    push(parent)
    tell('queued', id)
  else
    local state = 'completed'
    if ends ~= true then state, parent.ended_at = ending(ends) end
    end_job(parent, state)
  end
end

-- The last call of these scripts: finishes the parents of ended items, and sends the collected commands.
local function finish()
  write_counts()
  for id, ends in pairs(parents) do
    finish_parent(id, ends)
    tell('items', id)
  end
  parents = {}
  flush()
end
