-- @include lib/still_ahead
-- @include lib/int
-- What the limits of a queue let start: of the queue as a whole ("q"), of a type ("t<type>"), of a group ("g<group>").
--
-- A rate is GCRA, the leaky bucket as a meter: `tat` is the theoretical arrival time, in us, of the next start; one
-- may come `slack` (burst x every) before it, and moves it on by `every` x its cost. The meter keeps the `every` it was
-- written with, another rate since then takes over the share of an interval that is left when it is first looked at; and when
-- it was written, so that a clock which has gone back since makes nothing wait longer.
local function scopes_of(keys, now, micros)
  if not keys.limited then
    local free = { limited = false }
    local function unlimited() return free end
    return { queue = unlimited, type = unlimited, group = function() return nil, 1 end }
  end
  local never, known = 9007199254740991, {}
  local queue_rate, queue_slots, group_rate, group_slots =
    unpack(redis.call("HMGET", keys.config, "rate", "concurrency", "group_rate", "group_concurrency"))
  local metered, ruled = keys.meters_size > 0, keys.groups_size > 0
  local grouped = group_rate or group_slots or ruled or metered
  local all = { counting = keys.counting }

  -- A policy's field: what is set, else the default; "-" is none.
  local function field(set, default)
    if set and set ~= "" then return set ~= "-" and set or nil end
    return default and default ~= "" and default ~= "-" and default or nil
  end

  local function scope(name, slots, rate, paused)
    local its = { name = name, left = math.huge, until_ms = 0, had = math.huge, limited = false, over = false,
      every = nil, weight = 1 }
    if paused == "1" then its.until_ms = never end
    local held, set_at = string.match(metered and redis.call("HGET", keys.meters, "hold " .. name) or "", "^(%d+)|?(%d*)$")
    if held then
      local left, stepped = still_ahead(held, set_at, now)
      its.until_ms = math.max(its.until_ms, now + math.min(left, 604800000))
      its.over, its.held = left <= 0, stepped and int(now + left) .. "|" .. int(now)
    end
    if slots then
      local used = name == "q" and redis.call("ZCARD", keys.running)
        or redis.call("ZLEXCOUNT", keys.slots, "[" .. name .. " ", "(" .. name .. "!")
      its.left = tonumber(slots) - used
    end
    local limit, per_ms, burst
    if rate then limit, per_ms, burst = string.match(rate, "^(%d+)|(%d+)|(%d+)$") end
    if limit then
      its.every = math.ceil(tonumber(per_ms) * 1000 / tonumber(limit))
      its.slack = tonumber(burst) * its.every
      local tat, every, at = string.match(metered and redis.call("HGET", keys.meters, name) or "", "^(%d+)|(%d+)|?(%d*)$")
      local left, stepped = still_ahead(tat or 0, at, micros)
      local ahead = tat and left / tonumber(every) * its.every or 0
      its.tat = micros + math.ceil(math.max(-its.every, math.min(ahead, its.slack + 1000 * its.every)))
      its.begun, its.moved = its.tat, tat and (stepped or tonumber(every) ~= its.every)
    end
    its.had, its.limited = its.left, its.left ~= math.huge or its.until_ms > 0 or its.every ~= nil
    return its
  end

  function all.queue()
    if not known.q then known.q = scope("q", queue_slots, queue_rate) end
    return known.q
  end

  function all.type(type)
    local its = known["t" .. type]
    if its then return its end
    local pattern, found = "^%d*|([^|\n]*)|?([^|\n]*)|?([^|\n]*)|?([^|\n]*)|?([^|\n]*)|?([^|\n]*)", {}
    for i, record in ipairs(redis.call("HMGET", keys.types, type, ":" .. type)) do
      local slots, limit, per_ms, burst, paused, breaker = string.match(record or "", pattern)
      local rate = limit and limit ~= "" and (limit == "-" and "-" or limit .. "|" .. per_ms .. "|" .. burst)
      found[i] = { slots = slots, rate = rate, paused = paused, breaker = breaker }
    end
    local set, declared = found[1], found[2]
    its = scope("t" .. type, field(set.slots, declared.slots), field(set.rate, declared.rate), set.paused)
    its.breaker = field(set.breaker, declared.breaker)
    -- An open breaker lets nothing start until its time is over (or the clock went back); then it is half open, and so many
    -- probes may run. The mark of a probe is the time until which it was open.
    local open, probes = string.match(its.breaker or "", ";(%d+);(%d+)$")
    local state = open and metered and redis.call("HGET", keys.meters, "breaker " .. type) or ""
    local mark, passed = string.match(state, "^open|(%d+)|(%d+)|")
    local ends = tonumber(mark or nil)
    if ends and ends > now and ends <= now + tonumber(open) then
      its.until_ms, its.open, its.limited = math.max(its.until_ms, ends), ends, true
    elseif ends then
      local out = redis.call("ZLEXCOUNT", keys.slots, "[b" .. type .. " ", "(b" .. type .. "!")
      its.left = math.min(its.left, math.max(1, tonumber(probes) - tonumber(passed)) - out)
      its.probe, its.had, its.limited = mark, its.left, true
    end
    known["t" .. type] = its
    return its
  end

  -- Of a group, with its weight; nil for what no limit concerns.
  function all.group(group)
    if group == "" or not grouped then return nil, 1 end
    local its = known["g" .. group]
    if its then return its, its.weight end
    local own = ruled and redis.call("HGET", keys.groups, group)
    local weight, slots, limit, per_ms, burst, paused
    if own then
      weight, slots, limit, per_ms, burst, paused =
        string.match(own, "^(%d*)|([^|\n]*)|([^|\n]*)|([^|\n]*)|([^|\n]*)|([^|\n]*)")
    end
    local rate = limit and limit ~= "" and (limit == "-" and "-" or limit .. "|" .. per_ms .. "|" .. burst)
    its = scope("g" .. group, field(slots, group_slots), field(rate, group_rate), paused)
    its.weight = tonumber(weight) or 1
    known["g" .. group] = its
    return its, its.weight
  end

  -- How many jobs of cost 1 may start now.
  function all.room(its)
    if not its or not its.limited then return math.huge end
    if its.until_ms > now or its.left <= 0 then return 0 end
    if not its.every then return its.left end
    local ahead = math.max(its.tat, micros) - micros
    if ahead > its.slack then return 0 end
    return math.min(its.left, math.floor((its.slack - ahead) / its.every) + 1)
  end

  -- When to look again at one that has no room, ms: what waits for a slot is told when one comes back.
  function all.again(its)
    if its.left <= 0 then return never end
    if its.until_ms > now then return its.until_ms end
    return its.every and math.max(now + 1, math.ceil((its.tat - its.slack) / 1000)) or now
  end

  function all.use(its, cost)
    if not its or not its.limited then return end
    its.left = its.left - 1
    if its.every then its.tat = math.max(its.tat, micros) + its.every * cost end
  end

  -- Takes all that was used back: the caller uses again what came of it.
  function all.forget()
    for _, its in pairs(known) do
      its.left, its.tat = its.had, its.begun
    end
  end

  -- What `take` writes down: fields and values of the meters that moved, and the fields of what is over.
  function all.moved()
    local fields, over = {}, {}
    for name, its in pairs(known) do
      if its.over then over[#over + 1] = "hold " .. name end
      if its.held then fields[#fields + 1], fields[#fields + 2] = "hold " .. name, its.held end
      if its.every and (its.moved or its.tat ~= its.begun) then
        fields[#fields + 1], fields[#fields + 2] = name, string.format("%.0f|%.0f|%.0f", its.tat, its.every, micros)
      end
    end
    return fields, over
  end
  return all
end
