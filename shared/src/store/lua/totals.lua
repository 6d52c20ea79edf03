-- The number of jobs in each state but queued, items included.
-- KEYS: the partition. ARGV: now
-- Returns: {state, count, state, count, …}
local counts = {
  'running', look('ZCARD', LEASES) or 0, 'scheduled', look('ZCARD', SCHEDULED) or 0,
  'retrying', look('ZCARD', RETRYING) or 0, 'waiting', look('ZCARD', WAITING) or 0,
}
local kinds = look('SMEMBERS', KINDS) or {}
for _, state in ipairs(FINAL) do
  local ended = 0
  for _, kind in ipairs(kinds) do
    for _, place in ipairs(ENDED) do
      ended = ended + (look('ZCARD', ended_key(place, kind, state)) or 0)
    end
  end
  counts[#counts + 1], counts[#counts + 2] = state, ended
end
return counts
