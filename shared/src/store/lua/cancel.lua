-- Cancels jobs that are not running, and flags jobs that are running or waiting for their items. With `open`, only
-- unsealed parents whose time has passed.
-- Transition: cancel
-- KEYS: the partition. ARGV: now, mode (any | open), ids…
-- Returns, for each: cancelled (also for a job cancelled before) | requested | begun <items> (a cascade cancels them) |
--   completed | failed | missing | kept
local open, answers = ARGV[2] == 'open', {}
for i = 3, #ARGV do
  -- guard: open
  local kept = open and tonumber(call('ZSCORE', OPEN, ARGV[i]) or now + 1) > unskipped()
  answers[i - 2] = kept and 'kept' or cancel_one(ARGV[i])
  if open and not kept then call('ZREM', OPEN, ARGV[i]) end
end
finish()
return answers
