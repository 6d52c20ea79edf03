-- Included by scripts that end or prune jobs: how long an ended job is kept, in ms.

-- `<completed> <failed> <cancelled>` of a kind, or the default.
local retentions = {}
local function retention(kind, state)
  local text = retentions[kind]
  if text == nil then
    text = call('HGET', RETENTION, kind) or RETENTION_DEFAULT
    retentions[kind] = text
  end
  local completed, failed, cancelled = string.match(text, '^(%d+) (%d+) (%d+)')
  if not completed then completed, failed, cancelled = string.match(RETENTION_DEFAULT, '^(%d+) (%d+) (%d+)') end
  return tonumber(({ completed = completed, failed = failed, cancelled = cancelled })[state])
end
