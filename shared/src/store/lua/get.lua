-- Reads complete jobs, each atomically.
-- KEYS: the partition. ARGV: now, ids…
-- Returns, for each: {running record or '', lease end or '', due or '', cancelling 0|1, field, value, …} | {} when there
--   is none | {corrupt, key}
local jobs = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local fields = redis.pcall('HGETALL', job_key(id))
  if fields.err then
    jobs[i - 1] = { 'corrupt', job_key(id) }
  elseif #fields == 0 then
    jobs[i - 1] = {}
  else
    jobs[i - 1] = {
      look('HGET', RUNNING, id) or '', look('ZSCORE', LEASES, id) or '',
      look('ZSCORE', RETRYING, id) or look('ZSCORE', SCHEDULED, id) or '', look('SISMEMBER', CANCELLING, id) or 0,
      unpack(fields),
    }
  end
end
return jobs
