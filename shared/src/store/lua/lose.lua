-- Reports keys that were set aside, each once, and ends the items among them, so that their batches go on.
-- Transition: lose finish
-- KEYS: the partition. ARGV: now, keys that were set aside…
-- Returns, for each that no other call has reported: {key, reason}

-- The batch of an item, and its number: by the record, or by the id, `<batch>-<number>` or `<batch>-<number>-<nonce>`.
local function batch_of(id, known, aside)
  local candidates = { { string.match(id, '^(.+)%-(%d+)$') }, { string.match(id, '^(.+)%-(%d+)%-%d+$') } }
  if known ~= '' then candidates = { { known, look('HGET', aside, 'item') or 0 } } end
  for _, candidate in ipairs(candidates) do
    local parent = candidate[1] and read(candidate[1])
    if parent and parent.items_total and tonumber(candidate[2]) < tonumber(parent.items_total) then
      return parent, candidate[2]
    end
  end
end

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
