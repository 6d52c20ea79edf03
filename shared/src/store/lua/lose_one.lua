-- Included by cascade, lose and migrate.

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

-- Ends an item whose record is gone, so that its batch goes on: a record without a payload takes its place.
local function lose_one(id, parent, number, state)
  -- It was counted when it ended.
  for _, ended in ipairs(FINAL) do
    if call('ZSCORE', ended_key('items', parent.kind, ended), id) then return end
  end
  local aside = quarantined_key(job_key(id))
  local lost = redis.call('EXISTS', aside) == 1 and 'could not be read and was set aside as ' .. aside or 'is gone'
  stop_running(id, running(id))
  call('ZREM', SCHEDULED, id)
  call('ZREM', RETRYING, id)
  local item = { id = id, key = job_key(id), kind = parent.kind, parent = parent.id }
  local row = { 'kind', parent.kind, 'queue', parent.queue, 'created_at', now, 'parent', parent.id, 'item', number,
    'max_attempts', 1, 'payload', 'null', 'lost', 1 }
  add_unusual(row, parent)
  redis.call('HSET', item.key, unpack(row))
  end_job(item, state, false, 'error', cjson.encode({
    code = 'bad_payload', message = 'its record ' .. lost .. '; it cannot be retried', at = now,
  }))
end
