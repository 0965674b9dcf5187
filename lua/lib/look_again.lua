-- @include lib/int
-- Brings back what waits for a limit that may have room again, as far as there is room: a held group takes turns again, and of
-- the lanes that wait for a type as many as may start, those of the groups whose turn is nearest first. Answers the types
-- whose lanes it brought back, and whether more waits. The caller has read every key.
local function look_again(keys, scopes, now, most)
  local due = redis.call("ZRANGEBYSCORE", keys.waits, "-inf", int(now), "LIMIT", 0, 100)
  local types, more, turn = {}, #due == 100, tonumber(redis.call("HGET", keys.counters, "turn")) or 0
  local function join(group, tag)
    redis.call("ZADD", keys.turns, "NX", string.format("%.17g", math.max(tonumber(tag), turn)), group)
  end
  local function back(group)
    local tag = redis.call("ZSCORE", keys.parked, group)
    redis.call("ZREM", keys.waits, "g" .. group)
    redis.call("ZREM", keys.lines, "* " .. group)
    if not tag then return end
    redis.call("ZREM", keys.parked, group)
    join(group, tag)
  end
  for _, name in ipairs(due) do
    local kind, its = string.sub(name, 1, 1), string.sub(name, 2)
    if kind == "g" then
      back(its)
    elseif kind == "*" then
      -- The default of all groups has changed: those that are held are looked at in order of their names.
      local after = redis.call("HGET", keys.counters, "relook")
      local page = redis.call("ZRANGEBYLEX", keys.lines, after and "(* " .. after or "[* ", "(*!", "LIMIT", 0, 200)
      for _, member in ipairs(page) do back(string.sub(member, 3)) end
      if #page == 200 then
        redis.call("HSET", keys.counters, "relook", string.sub(page[200], 3))
        more = true
      else
        redis.call("HDEL", keys.counters, "relook")
        redis.call("ZREM", keys.waits, name)
      end
    elseif kind == "t" then
      local room = math.min(scopes.room(scopes.type(its)), most)
      local first, last = "[" .. its .. " ", "(" .. its .. "!"
      local page = room > 0 and redis.call("ZRANGEBYLEX", keys.lines, first, last, "LIMIT", 0, room) or {}
      for _, member in ipairs(page) do
        local group = string.sub(member, #its + 23)
        local lane = its .. " " .. group
        local tag = redis.call("ZSCORE", keys.parked, lane)
        local head = redis.call("ZRANGEBYLEX", keys.lanes, "[" .. lane .. " ", "(" .. lane .. "!", "LIMIT", 0, 1)[1]
        redis.call("ZREM", keys.lines, member)
        redis.call("ZREM", keys.parked, lane)
        if head then
          redis.call("ZADD", keys.heads, 0, group .. " " .. string.sub(head, #lane + 2, #lane + 18) .. " " .. its)
          if not redis.call("ZSCORE", keys.parked, group) then join(group, tag or turn) end
        end
      end
      if room > 0 and #page < room then
        redis.call("ZREM", keys.waits, name)
      else
        types[#types + 1] = its
      end
    else
      redis.call("ZREM", keys.waits, name)
    end
  end
  return types, more
end
