-- Reads complete jobs, each atomically.
-- KEYS: the partition. ARGV: now, n, ids…
-- Returns, for each: {running record or '', lease end or '', when the next attempt is due or '', cancelling 0|1, field,
--   value, …} | {} when there is none | {corrupt, key}
local ids, jobs = {}, {}
for i = 1, tonumber(ARGV[2]) do ids[i] = ARGV[2 + i] end
local records = look('HMGET', RUNNING, unpack(ids)) or {}
local flags = redis.call('EXISTS', CANCELLING) == 1 and look('SMISMEMBER', CANCELLING, unpack(ids)) or {}

local function due(id, fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'state' then return fields[i + 1] == 'retrying' and look('ZSCORE', RETRYING, id) or '' end
  end
  return ''
end

for i, id in ipairs(ids) do
  local fields = redis.pcall('HGETALL', job_key(id))
  if fields.err then
    jobs[i] = { 'corrupt', job_key(id) }
  elseif #fields == 0 then
    jobs[i] = {}
  else
    local record = records[i]
    jobs[i] = {
      record or '', record and look('ZSCORE', LEASES, id) or '', due(id, fields), flags[i] or 0, unpack(fields),
    }
  end
end
return jobs
