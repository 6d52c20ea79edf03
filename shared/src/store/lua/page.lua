-- Included by list and finished: pages of sorted sets after a cursor (score and id, or both empty), newest or soonest
-- first: {id, score, id, score, …}.

-- Whether one id sorts before another, as in Redis: by bytes. Lua compares by the locale.
local function is_less(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

-- The rank of the first member after the cursor, whose job may have left the set.
local function rank_after(key, newest, score, id)
  local from = look('ZCOUNT', key, newest and '(' .. score or '-inf', newest and '+inf' or '(' .. score) or 0
  local to = from + (look('ZCOUNT', key, score, score) or 0)
  -- Among the members of this score.
  while from < to do
    local middle = math.floor((from + to) / 2)
    local at = redis.call(newest and 'ZREVRANGE' or 'ZRANGE', key, middle, middle)[1]
    local passed = at == id
    if not passed and newest then passed = is_less(id, at) elseif not passed then passed = is_less(at, id) end
    if passed then from = middle + 1 else to = middle end
  end
  return from
end

local function page_of(key, newest, score, id, limit)
  local from = score == '' and 0 or rank_after(key, newest, score, id)
  return look(newest and 'ZREVRANGE' or 'ZRANGE', key, from, from + limit - 1, 'WITHSCORES') or {}
end

-- A page of several sets, merged.
local function merged(keys, newest, score, id, limit)
  local pages, heads, page = {}, {}, {}
  for _, key in ipairs(keys) do
    local next_page = page_of(key, newest, score, id, limit)
    if #next_page > 0 then
      pages[#pages + 1] = next_page
      heads[#pages] = { at = 1, score = tonumber(next_page[2]), id = next_page[1] }
    end
  end
  if #pages == 1 then return pages[1] end
  local function is_before(a, b)
    if a.score ~= b.score then return (a.score > b.score) == newest end
    return is_less(a.id, b.id) ~= newest
  end
  while #page < 2 * limit do
    local first
    for i, head in ipairs(heads) do
      if head.id and (not first or is_before(head, heads[first])) then first = i end
    end
    if not first then break end
    local head, from = heads[first], pages[first]
    page[#page + 1], page[#page + 2] = from[head.at], from[head.at + 1]
    head.at = head.at + 2
    head.id, head.score = from[head.at], tonumber(from[head.at + 1] or 0)
  end
  return page
end
