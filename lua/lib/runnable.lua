-- @include lib/scopes_of
-- @include lib/hindrances
-- @include lib/lane_of
-- Of the ready jobs of a queue with limits: how many may start now, the id of the first of them (nil), how many are held by each
-- reason, and whether that is exact. Looks at `most` types, and at that many lanes of them all; what it does not
-- look at is taken to be as the rest of its type. The caller has read every key (lib/laned).
local function runnable(keys, now, micros, most)
  local scopes, held, kinds, at, filed = scopes_of(keys, now, micros), {}, {}, "-", 0
  local queue, grouped = scopes.queue(), scopes.group(".") ~= nil
  local function code_of(its, room)
    if room == 0 then return hindrances(its, now, micros)[1][1] end
    if its.probe and room == its.left then return "breaker_open" end
    return its.every and room < its.left and "rate_limited" or "concurrency_limited"
  end
  local function hold(code, n) held[code] = (held[code] or 0) + n end
  for _ = 1, most do
    local member = redis.call("ZRANGEBYLEX", keys.lanes, at, "+", "LIMIT", 0, 1)[1]
    if not member then break end
    local type = string.match(member, "^%S+")
    local kind = { type = type, scope = scopes.type(type) }
    kind.n, kind.room = redis.call("ZLEXCOUNT", keys.lanes, "[" .. type .. " ", "(" .. type .. "!"), scopes.room(kind.scope)
    kinds[#kinds + 1], filed, at = kind, filed + kind.n, "(" .. type .. "!"
  end
  local total = redis.call("ZCARD", keys.ready)
  -- What is not filed yet nobody has looked at: it may start, for all that is known.
  local sum, exact, best, first, second = math.max(0, total - filed), filed == total, nil, nil, nil

  local head = redis.call("ZRANGE", keys.ready, 0, 0)[1]
  if head then
    local type, group = lane_of(redis.call("HGET", keys.jobs, head))
    if scopes.room(scopes.type(type)) > 0 and scopes.room((scopes.group(group))) > 0 then first = head end
  end
  local narrow, shared = false, false
  local budget, rooms = math.max(2, math.floor(most / math.max(1, #kinds))), {}
  for _, kind in ipairs(kinds) do
    local seen, from, kept, left, nearest, id = 0, "[" .. kind.type .. " ", {}, kind.room, nil, nil
    for _ = 1, kind.room > 0 and (grouped or not first) and budget or 0 do
      local member = redis.call("ZRANGEBYLEX", keys.lanes, from, "(" .. kind.type .. "!", "LIMIT", 0, 1)[1]
      if not member then break end
      local group, rank, key = string.match(member, "^%S+ (%S*) (%S+) (%S+)")
      local lane, its = kind.type .. " " .. group, scopes.group(group)
      local n = redis.call("ZLEXCOUNT", keys.lanes, "[" .. lane .. " ", "(" .. lane .. "!")
      local room = rooms[group] or scopes.room(its)
      local may = math.min(n, room)
      if its then
        shared = shared or room < math.huge
        rooms[group] = room - math.min(may, left)
        local code = n > may and code_of(its, scopes.room(its))
        if code then kept[code] = (kept[code] or 0) + n - may end
      end
      left = left - math.min(may, left)
      if may > 0 and (not nearest or rank < nearest) then nearest, id = rank, key end
      seen, from = seen + n, "(" .. lane .. "!"
    end
    narrow = narrow or kind.room > 0 and kind.room < kind.n
    local share = 1
    if grouped and kind.room > 0 and seen < kind.n then exact, share = false, kind.n / seen end
    local rest = kind.n
    for code, some in pairs(kept) do
      local n = math.min(rest, math.floor(some * share + 0.5))
      hold(code, n)
      rest = rest - n
    end
    local may = math.min(rest, kind.room)
    if may < rest then hold(code_of(kind.scope, kind.room), rest - may) end
    sum = sum + may
    if nearest and may > 0 and (not best or nearest < best) then best, second = nearest, id end
  end
  local room = scopes.room(queue)
  if room < sum then hold(code_of(queue, room), sum - room) end
  sum = math.min(sum, room)
  -- Whose turn it is decides then which type's last slots go to which group's.
  if narrow and shared then exact = false end
  return sum, sum > 0 and (first or second) or nil, held, exact
end
