-- Requeues failed and cancelled jobs, with attempts and crashes reset to zero.
-- Transition: retry
-- KEYS: the partition. ARGV: now, ids…
-- Returns, for each: queued | waiting | refused (its state forbids it) | parent (retry its parent instead) |
--   flagged (its parent is being cancelled) | lost (its record was) | missing
local answers = {}
for i = 2, #ARGV do answers[i - 1] = retry_one(ARGV[i]) end
finish()
return answers
