-- Included by claim and renew: the counter of tokens.
--
-- A token is Redis's time in microseconds, or one more than the last if that is larger. So a counter that was rolled
-- back (a failover, a restored backup, a lost second of the AOF) is behind the clock and gives no token twice. Workers
-- send the highest token that they have seen, for a server whose clock is behind too.

-- A token as a number; 0 for none, and for one that no script has issued.
local function token_of(text)
  local token = text and #text <= 16 and string.find(text, '^%d+$') and tonumber(text) or 0
  return token <= TOKEN_MAX and token or 0
end

-- The last token issued; 0 when the counter is lost. A damaged counter is set aside.
local function last_token()
  local given = redis.pcall('GET', TOKENS)
  if not given then return 0 end
  local text = type(given) == 'string' and given or ''
  local last = token_of(text)
  if last == 0 and text ~= '0' then set_aside(TOKENS, 'it is not a token') end
  return last
end
