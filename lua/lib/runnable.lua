-- @include lib/scopes_of
-- @include lib/hindrances
-- @include lib/lane_of
-- Of the ready jobs of a queue with limits: how many may start now, the id of the first of them (nil), how many are held by each
-- reason, and whether that is exact. Looks at `most` types and lanes, no more than half of them types where lanes matter; what
-- it does not look at is taken to be as the rest of its type. The caller has read every key (lib/laned).
local function runnable(keys, now, micros, most)
  local scopes, held, kinds, at, filed = scopes_of(keys, now, micros), {}, {}, "-", 0
  local queue, grouped = scopes.queue(), scopes.group(".") ~= nil
  local function code_of(its, room)
    if room == 0 then return hindrances(its, now, micros)[1][1] end
    if its.probe and room == its.left then return "breaker_open" end
    return its.every and room < its.left and "rate_limited" or "concurrency_limited"
  end
  local function hold(code, n) held[code] = (held[code] or 0) + n end
  local head = redis.call("ZRANGE", keys.ready, 0, 0)[1]
  local first
  if head then
    local type, group = lane_of(redis.call("HGET", keys.jobs, head))
    if scopes.room(scopes.type(type)) > 0 and scopes.room((scopes.group(group))) > 0 then first = head end
  end
  local deep = grouped or not first
  -- Where lanes are looked at, half of the looks is theirs at least.
  for _ = 1, deep and math.max(1, math.floor(most / 2)) or most do
    local member = redis.call("ZRANGEBYLEX", keys.lanes, at, "+", "LIMIT", 0, 1)[1]
    if not member then break end
    local type = string.match(member, "^%S+")
    local kind = { type = type, scope = scopes.type(type), seen = 0, from = "[" .. type .. " ", kept = {} }
    kind.n, kind.room = redis.call("ZLEXCOUNT", keys.lanes, "[" .. type .. " ", "(" .. type .. "!"), scopes.room(kind.scope)
    kind.left = kind.room
    kinds[#kinds + 1], filed, at = kind, filed + kind.n, "(" .. type .. "!"
  end
  local total = redis.call("ZCARD", keys.ready)
  -- What is not filed yet nobody has looked at: it may start, for all that is known.
  local sum, exact, best, second = math.max(0, total - filed), filed == total, nil, nil

  local narrow, shared, rooms = false, false, {}
  -- Looks at the next lane of a type.
  local function look(kind)
    local member = redis.call("ZRANGEBYLEX", keys.lanes, kind.from, "(" .. kind.type .. "!", "LIMIT", 0, 1)[1]
    local group, rank, key = string.match(member, "^%S+ (%S*) (%S+) (%S+)")
    local lane, its = kind.type .. " " .. group, scopes.group(group)
    local n = redis.call("ZLEXCOUNT", keys.lanes, "[" .. lane .. " ", "(" .. lane .. "!")
    local room = rooms[group] or scopes.room(its)
    local may = math.min(n, room)
    if its then
      shared = shared or room < math.huge
      rooms[group] = room - math.min(may, kind.left)
      local code = n > may and code_of(its, scopes.room(its))
      if code then kind.kept[code] = (kind.kept[code] or 0) + n - may end
    end
    kind.left = kind.left - math.min(may, kind.left)
    if may > 0 and (not kind.nearest or rank < kind.nearest) then kind.nearest, kind.id = rank, key end
    kind.seen, kind.from = kind.seen + n, "(" .. lane .. "!"
  end
  -- What some types do not need of their share the others have.
  local looks, open = math.max(1, most - #kinds), {}
  for _, kind in ipairs(kinds) do
    if deep and kind.room > 0 then open[#open + 1] = kind end
  end
  for _ = 1, most do
    if #open == 0 or looks == 0 then break end
    local share, unfinished = math.max(1, math.floor(looks / #open)), {}
    for _, kind in ipairs(open) do
      for _ = 1, math.min(share, looks) do
        if kind.seen == kind.n then break end
        look(kind)
        looks = looks - 1
      end
      if kind.seen < kind.n then unfinished[#unfinished + 1] = kind end
    end
    open = unfinished
  end

  for _, kind in ipairs(kinds) do
    narrow = narrow or kind.room > 0 and kind.room < kind.n
    local share = 1
    if grouped and kind.room > 0 and kind.seen < kind.n then exact, share = false, kind.n / kind.seen end
    local rest = kind.n
    for code, some in pairs(kind.kept) do
      local n = math.min(rest, math.floor(some * share + 0.5))
      hold(code, n)
      rest = rest - n
    end
    local may = math.min(rest, kind.room)
    if may < rest then hold(code_of(kind.scope, kind.room), rest - may) end
    sum = sum + may
    if kind.nearest and may > 0 and (not best or kind.nearest < best) then best, second = kind.nearest, kind.id end
  end
  local room = scopes.room(queue)
  if room < sum then hold(code_of(queue, room), sum - room) end
  sum = math.min(sum, room)
  -- Whose turn it is decides then which type's last slots go to which group's.
  if narrow and shared then exact = false end
  return sum, sum > 0 and (first or second) or nil, held, exact
end
