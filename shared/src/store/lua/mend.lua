-- Repairs everything except the place of a job: an unreadable key, the token counter, a parent's counts, a report.
-- KEYS: the partition. ARGV: now, what, and for
--   aside: key, required type (empty: the content is wrong), reason
--   tokens: the highest token that was issued
--   counts: parent, its five counts as read (total succeeded failed skipped cancelled, as one text), then the new
--     values of the four after the total, each
--   accept: key of a record that was set aside, and ms for which it is kept
-- Returns: mended | kept (it has changed since it was read)
local what, key = ARGV[2], ARGV[3]
local COUNTS = { 'items_total', 'items_succeeded', 'items_failed', 'items_skipped', 'items_cancelled' }

local function aside(type, reason)
  local found = redis.call('TYPE', key).ok
  if found == 'none' or found == type then return 'kept' end
  set_aside(key, reason)
  return 'mended'
end

local function tokens(highest)
  local given = redis.pcall('GET', TOKENS)
  if type(given) == 'table' then set_aside(TOKENS, 'WRONGTYPE') end
  if type(given) == 'string' and (tonumber(given) or 0) >= tonumber(highest) then return 'kept' end
  redis.call('SET', TOKENS, highest)
  return 'mended'
end

local function counts(seen)
  local job, found = read(key), {}
  if not job or not job.items_total then return 'kept' end
  local stored = call('HMGET', job.key, unpack(COUNTS))
  for i = 1, #COUNTS do found[i] = stored[i] or '0' end
  if table.concat(found, ' ') ~= seen then return 'kept' end
  for i = 2, #COUNTS do redis.call('HSET', job.key, COUNTS[i], ARGV[3 + i]) end
  parents[key] = true
  return 'mended'
end

local function accept(kept_ms)
  call('HDEL', QUARANTINE, key)
  redis.call('PEXPIRE', P .. ':quarantined:' .. string.sub(key, #P + 2), kept_ms)
  return 'mended'
end

local mend = { aside = aside, tokens = tokens, counts = counts, accept = accept }
local reply = mend[what](ARGV[4], ARGV[5])
finish()
return reply
