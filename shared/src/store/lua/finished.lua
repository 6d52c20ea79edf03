-- A page of a kind's ended jobs after a cursor, newest first, with the values by which a prune decides.
-- KEYS: the partition. ARGV: now, kind, state (empty: all), score and id of the cursor (or empty), limit, ms ago that
--   the first page begins (empty: now)
-- Returns: {server time ms, {id, end ms, state or '', items, bytes of payload, result, checkpoint and error}…}
local kind, score, id, limit, ago = ARGV[2], ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7]
if score == '' and ago ~= '' then score = string.format('%.0f', now - tonumber(ago)) end
local keys, replies = {}, { now }
for _, state in ipairs(ARGV[3] ~= '' and { ARGV[3] } or FINAL) do
  keys[#keys + 1] = ended_key('finished', kind, state)
  keys[#keys + 1] = ended_key('imported', kind, state)
end
local page = merged(keys, true, score, id, limit)
for i = 1, #page, 2 do
  local key, bytes = job_key(page[i]), 0
  local known = look('HMGET', key, 'state', 'items_total') or {}
  for _, field in ipairs({ 'payload', 'result', 'checkpoint', 'error' }) do
    bytes = bytes + (look('HSTRLEN', key, field) or 0)
  end
  replies[#replies + 1] = { page[i], page[i + 1], known[1] or '', known[2] or '0', bytes }
end
return replies
