-- @include lib/scopes_of
-- @include lib/hindrances
-- @include lib/lane_of
-- @include lib/lane_member
-- What holds a ready job in this moment, as reasons (lua/explain.lua), how many are before it in line, and whether that is
-- exact; of one that is not ready (no `score`) only the pauses that will. The caller has read every key (lib/laned).
local function holds(keys, id, score, now, micros)
  local type, group, cost = lane_of(redis.call("HGET", keys.jobs, id))
  local scopes, found = scopes_of(keys, now, micros), {}

  -- Up to ten who run, of those that `its` counts.
  local function holders(its)
    local first, last = "[" .. its.name .. " ", "(" .. its.name .. "!"
    local used = its.name == "q" and redis.call("ZCARD", keys.running) or redis.call("ZLEXCOUNT", keys.slots, first, last)
    if used == 0 then return 0, "" end
    local ids = its.name == "q" and redis.call("ZRANGE", keys.running, 0, 9)
      or redis.call("ZRANGEBYLEX", keys.slots, first, last, "LIMIT", 0, 10)
    if its.name ~= "q" then
      for i, member in ipairs(ids) do ids[i] = string.sub(member, #its.name + 2) end
    end
    local whose = redis.call("HMGET", keys.leases, unpack(ids))
    for i, lease in ipairs(whose) do ids[i] = ids[i] .. " " .. (string.match(lease or "", "^%d+|([^|]*)|") or "") end
    return used, table.concat(ids, ",")
  end

  if redis.call("HEXISTS", keys.config, "paused") == 1 then found[1] = "queue_paused||q" end
  for _, its in ipairs({ scopes.queue(), scopes.type(type), scopes.group(group) or nil }) do
    for _, it in ipairs(its.limited and hindrances(its, now, micros) or {}) do
      local more = its.name
      if it[1] == "concurrency_limited" then
        local used, whose = holders(its)
        more = string.format("%s|%d|%.0f|%s", more, used, used + its.left, whose)
      end
      local pause = string.find(it[1], "_paused", 1, true)
      if score or pause then found[#found + 1] = it[1] .. "|" .. (it[2] and string.format("%.0f", it[2]) or "") .. "|" .. more end
    end
  end
  if not score then return found, nil, true end

  local member = keys.laned and lane_member(keys, type, group, score, id, cost)
  if not member or not redis.call("ZSCORE", keys.lanes, member) then
    return found, redis.call("ZRANK", keys.ready, id), not keys.laned
  end
  if not keys.limited then
    -- @include lib/place_in_turn
    local before, turn = place_in_turn(keys, group, member)
    if turn > 0 then found[#found + 1] = "group_turn||" .. turn end
    return found, before, false
  end
  local name = type .. " " .. group
  local rank = string.sub(member, #name + 2, #name + 18)
  local function before(lane)
    return redis.call("ZLEXCOUNT", keys.lanes, "[" .. lane .. " ", "(" .. lane .. " " .. rank .. " " .. id)
  end
  local ahead, turn = before(name), redis.call("ZRANK", keys.turns, group)
  local aside = redis.call("ZSCORE", keys.parked, name)
  if aside then
    -- It waits for its type behind the lanes of other groups, each of which will run one before it.
    local waits = string.format("%s %020.6f %s", type, tonumber(aside), group)
    turn = redis.call("ZLEXCOUNT", keys.lines, "[" .. type .. " ", "(" .. waits)
  else
    local start = group .. " "
    for _, head in ipairs(redis.call("ZRANGEBYLEX", keys.heads, "[" .. start, "(" .. start .. rank, "LIMIT", 0, 20)) do
      local other = string.sub(head, #group + 20)
      if other ~= type and scopes.room(scopes.type(other)) > 0 then ahead = ahead + before(other .. " " .. group) end
    end
  end
  if turn and turn > 0 then found[#found + 1] = "group_turn||" .. turn end
  local others = turn and (aside and turn or redis.call("ZCARD", keys.turns) - 1) or 0
  return found, math.min(redis.call("ZCARD", keys.ready) - 1, ahead * (others + 1) + (turn or 0)), false
end
