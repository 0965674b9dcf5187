-- @include lib/standings
-- @include lib/state_of
-- @include lib/retire
-- @include lib/announce
-- The write phase of resolve: notes the words down, then moves each job that was spoken of to where all that is known puts it.
-- Answers the state of each now. The caller has read every key, so that nothing here can fail.
local function resolved(keys, words, now, micros)
  -- @include lib/to_ready
  -- @include lib/lapses
  -- @include lib/weight_of
  local function standing_of(id, from)
    for _, sign in ipairs({ "?", "+", "-" }) do
      if redis.call("ZSCORE", keys.awaits, id .. " " .. sign .. from) then return sign end
    end
  end
  local function sign_of(state) return state == "succeeded" and "+" or state == "revived" and "?" or "-" end

  local function note(word)
    local id, from = word.id, word.from
    local field, former, sign = id .. " " .. from, standing_of(id, from), sign_of(word.state)
    if word.state == "joins" then
      -- Whoever says so may die before that one comes in: it is asked for after a while.
      if redis.call("ZSCORE", keys.blocked, id) then
        if not former then redis.call("ZADD", keys.awaits, 0, id .. " ?" .. from) end
        redis.call("ZADD", keys.opening, string.format("%.0f", now), id)
      end
      return
    end
    local last = tonumber(string.match(redis.call("HGET", keys.parents, field) or "", "^(%d+)|")) or -1
    if tonumber(word.order) <= last then return end
    if string.find(from, ":=", 1, true) then
      -- A gate is no job: nothing is left of one that was opened.
      if former == "?" then
        redis.call("ZREM", keys.awaits, id .. " ?" .. from)
        -- Who was to join one that is held may be on its way still.
        if string.sub(from, -#id - 2) ~= ":=" .. id then redis.call("ZREM", keys.opening, id) end
      end
      if former == "?" and sign == "-" then redis.call("ZADD", keys.awaits, 0, id .. " -" .. from) end
      return
    end
    -- One that its maker has not named yet may be through already: that is kept until the maker's own word.
    if not former and redis.call("ZLEXCOUNT", keys.awaits, "[" .. id .. " ", "(" .. id .. "!") == 0 then return end
    -- What all of them hand on to one job is 1 MiB at the most; a flow only counts.
    local bytes = tonumber(redis.call("HGET", keys.parents, id) or nil) or 0
    local handed = sign == "+" and string.sub(id, 1, 1) ~= "=" and bytes + #word.result <= 1048576
    local result = handed and word.result or ""
    redis.call("HSET", keys.parents, field, word.order .. "|" .. word.state .. "\n" .. result,
      id, string.format("%.0f", bytes + #result))
    if former and former ~= sign then
      redis.call("ZREM", keys.awaits, id .. " " .. former .. from)
      redis.call("ZADD", keys.awaits, 0, id .. " " .. sign .. from)
    end
    for added in string.gmatch(word.added, "%S+") do
      if not standing_of(id, added) then
        local state = string.match(redis.call("HGET", keys.parents, id .. " " .. added) or "", "^%d+|(%a+)")
        redis.call("ZADD", keys.awaits, 0, id .. " " .. (state and sign_of(state) or "?") .. added)
      end
    end
  end

  -- Whether a gate will never be opened: its flow was taken back.
  local function shut(id)
    local first = id .. " -"
    for _, member in ipairs(redis.call("ZRANGEBYLEX", keys.awaits, "[" .. first, "(" .. first .. "~", "LIMIT", 0, 10)) do
      if string.find(member, ":=", 1, true) then return true end
    end
    return false
  end

  local moved = { ids = {}, states = {}, ready = {}, cancelled = {}, revived = {} }
  local place, soonest = tonumber(redis.call("HGET", keys.counters, "place") or nil) or 0, nil
  local step = tonumber(redis.call("HGET", keys.config, "step") or nil) or 60000000
  local reopened, bytes = 0, 0

  local function conclude_flow(id, pending, failed)
    local name = string.sub(id, 2)
    local state, opened, asked, rest = string.match(redis.call("HGET", keys.flows, name) or "", "^(%a+)|(%d*)|%d*|(%d*)|(.*)$")
    if not state then return "missing" end
    local ended = ""
    if state ~= "building" and state ~= "undone" then
      state = pending > 0 and "running" or asked ~= "" and "cancelled" or failed > 0 and "failed" or "succeeded"
      redis.call("ZREM", keys.expiries, id)
      if pending == 0 then
        ended = string.format("%.0f", now)
        redis.call("ZADD", keys.expiries, string.format("%.0f", now + 86400000), id)
      end
      redis.call("HSET", keys.flows, name, state .. "|" .. opened .. "|" .. ended .. "|" .. asked .. "|" .. rest)
    end
    return state
  end

  local function conclude(id)
    local pending, _, failed = standings(keys, id)
    if string.sub(id, 1, 1) == "=" then return conclude_flow(id, pending, failed) end
    local state, score, ended = "blocked", redis.call("ZSCORE", keys.blocked, id), nil
    if not score then state, score, ended = state_of(keys, id) end
    if state ~= "blocked" and state ~= "cancelled" then return state or ended or "missing" end
    local record = redis.call("HGET", keys.jobs, id) or ""
    local flags, rank = string.match(record, "^[^|\n]*|[^|\n]*|([^|\n]*)|[^|\n]*|(%-?%d*)|")
    local policy = string.match(flags or "", " a:(%a+)")
    if not policy then return state end
    local course = course_of(redis.call("HGET", keys.attempts, id))
    if state == "cancelled" and course.reason ~= "dependency" then return state end

    local next = "blocked"
    if policy == "cancel" and failed > 0 or policy == "failure" and pending + failed == 0 or failed > 0 and shut(id) then
      next = "cancelled"
    elseif pending == 0 and (policy ~= "wait" or failed == 0) then
      next = "ready"
    end
    if next == state then return state end
    if state == "cancelled" then
      -- It was cancelled for one that runs again.
      redis.call("ZREM", keys.cancelled, id)
      redis.call("ZREM", keys.expiries, id)
      course.reason = ""
      redis.call("HSET", keys.attempts, id, course_text(course))
      local over = lapses(flags, course.attempt)
      if over then redis.call("ZADD", keys.expiries, string.format("%.0f", over), id) end
      local weight = weight_of(keys, id, record)
      if score >= 0 then bytes = bytes + weight end
      reopened = reopened + weight
      moved.revived[#moved.revived + 1] = id
    else
      redis.call("ZREM", keys.blocked, id)
      redis.call("ZREM", keys.opening, id)
    end
    if next == "cancelled" then
      course.reason = "dependency"
      redis.call("HSET", keys.attempts, id, course_text(course))
      moved.cancelled[#moved.cancelled + 1] = { id = id, flags = flags, bytes = weight_of(keys, id, record) }
    elseif next == "blocked" then
      -- It may have been cancelled before all that it waits for knew of it.
      redis.call("ZADD", keys.blocked, string.format("%.0f", now), id)
      redis.call("ZADD", keys.opening, string.format("%.0f", now), id)
    else
      local due = tonumber(string.match(flags, " w:(%d+)")) or 0
      if due > now then
        next, soonest = "scheduled", math.min(soonest or due, due)
        redis.call("ZADD", keys.scheduled, string.format("%.0f", due * 1000), id)
      else
        place = math.max(place + 1, micros)
        moved.ready[#moved.ready + 1] = { id = id, score = string.format("%.0f", place - (tonumber(rank) or 0) * step),
          record = string.match(record, "^[^\n]*") }
      end
    end
    moved.ids[#moved.ids + 1], moved.states[#moved.states + 1] = id, next
    return next
  end

  local known, reply = {}, {}
  redis.call("HDEL", keys.counters, "") -- a server that knows no flags lets HSET through after it
  for _, word in ipairs(words) do
    if word.state == "followed" then redis.call("ZREM", keys.opening, word.id) else note(word) end
  end
  for i, word in ipairs(words) do
    known[word.id] = known[word.id] or conclude(word.id)
    reply[i] = known[word.id]
  end
  to_ready(keys, moved.ready)
  redis.call("HSET", keys.counters, "place", string.format("%.0f", place))
  if reopened > 0 then tally(keys.counters, { bytes_cancelled = -bytes, bytes_unfinished = reopened }) end
  signal(keys, moved.revived, "revived", now)
  retire(keys, "cancelled", moved.cancelled, now)
  if #moved.ids > 0 then
    announce(keys, "resolve", "", now,
      { ids = moved.ids, states = moved.states, runnable = #moved.ready > 0, due = soonest })
  end
  return reply
end
