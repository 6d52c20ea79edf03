-- Cancels what nobody runs, and flags what runs or waits for its items. With `open`, only parents whose time to be
-- sealed has passed.
-- Transition: cancel
-- KEYS: the partition. ARGV: now, mode (any | open), ids…
-- Returns, for each: cancelled | requested | completed | failed | missing | kept (cancelled before answers cancelled too)
local open, answers = ARGV[2] == 'open', {}
for i = 3, #ARGV do
  -- guard: open
  local kept = open and tonumber(call('ZSCORE', OPEN, ARGV[i]) or now + 1) > unskipped()
  answers[i - 2] = kept and 'kept' or cancel_one(ARGV[i])
  if open and not kept then call('ZREM', OPEN, ARGV[i]) end
end
finish()
return answers
