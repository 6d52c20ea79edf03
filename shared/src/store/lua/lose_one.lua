-- Included by cascade and lose.

-- Ends an item whose record is gone, so that its batch goes on: a record without a payload takes its place.
local function lose_one(id, parent, number, state)
  -- It was counted when it ended.
  for _, ended in ipairs({ 'completed', 'failed', 'cancelled' }) do
    if call('ZSCORE', P .. ':' .. ended, id) then return end
  end
  local aside = quarantined_key(job_key(id))
  local lost = redis.call('EXISTS', aside) == 1 and 'could not be read and was set aside as ' .. aside or 'is gone'
  stop_running(id, running(id))
  call('ZREM', SCHEDULED, id)
  call('ZREM', RETRYING, id)
  local item = { id = id, key = job_key(id), kind = parent.kind, parent = parent.id, priority = parent.priority }
  redis.call('HSET', item.key, 'kind', parent.kind, 'queue', parent.queue, 'created_at', now, 'parent', parent.id,
    'item', number, 'max_attempts', 1, 'payload', 'null', 'lost', 1)
  write_unusual(item)
  end_job(item, state, false, 'error', cjson.encode({
    code = 'bad_payload', message = 'its record ' .. lost .. '; it cannot be retried', at = now,
  }))
end
