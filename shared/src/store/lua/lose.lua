-- Reports keys that were set aside, each once, and ends the items among them, so that their batches go on.
-- Transition: lose finish
-- KEYS: the partition. ARGV: now, keys that were set aside…
-- Returns, for each that no other call has reported: {key, reason}

local reports, jobs = {}, job_key('')
for i = 2, #ARGV do
  local key = ARGV[i]
  local known = call('HGET', ASIDE, key)
  call('HDEL', ASIDE, key)
  if known then
    reports[#reports + 1] = { key, string.match(call('HGET', QUARANTINE, key) or '', '^%d+ (.*)$') or '' }
    if string.sub(key, 1, #jobs) == jobs and redis.call('EXISTS', key) == 0 then
      local id = string.sub(key, #jobs + 1)
      local parent, number = batch_of(id, known, quarantined_key(key))
      if parent and parent.state == 'waiting' then lose_one(id, parent, number, 'failed') end
    end
  end
end
finish()
return reports
