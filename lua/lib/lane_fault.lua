-- @include lib/schedule_fault
-- @include lib/lane_of
-- @include lib/lane_member
-- @include lib/slots_of
-- @include lib/line_up
-- What is wrong with one member of the structures of the lanes, as a sentence, or nil; with `repair` it is put right. The caller
-- has read every key.
local function lane_fault(keys, structure, member, repair)
  if structure == "schedules" or structure == "fires" then return schedule_fault(keys, member, repair) end
  if keys.laned and not keys.limited and (structure == "lanes" or structure == "turns" or structure == "heads") then
    -- @include lib/turn_fault
    return turn_fault(keys, structure, member, repair)
  end
  local function first_of(lane)
    local head = redis.call("ZRANGEBYLEX", keys.lanes, "[" .. lane .. " ", "(" .. lane .. "!", "LIMIT", 0, 1)[1]
    return head, head and string.sub(head, #lane + 2, #lane + 18)
  end
  local function takes_turns(group)
    return redis.call("ZSCORE", keys.turns, group) or redis.call("ZSCORE", keys.parked, group)
  end
  local function strike() if repair then redis.call("ZREM", keys[structure], member) end end

  if structure == "lanes" then
    local type, group, rank, id = string.match(member, "^(%S+) (%S*) (%S+) (%S+)")
    local score = id and tonumber(redis.call("ZSCORE", keys.ready, id) or nil)
    local its, of, cost = lane_of(id and redis.call("HGET", keys.jobs, id) or "")
    -- What was damaged after it was filed is where it was: a claim will bury it.
    local same = score and (its == "-" and rank_text(score) == rank or lane_member(keys, its, of, score, id, cost) == member)
    if not same then
      local lane = (type or "") .. " " .. (group or "")
      local was_first = first_of(lane) == member
      strike()
      if repair and was_first and type then
        redis.call("ZREM", keys.heads, group .. " " .. rank .. " " .. type)
        local _, next = first_of(lane)
        if next and not redis.call("ZSCORE", keys.parked, lane) then
          redis.call("ZADD", keys.heads, 0, group .. " " .. next .. " " .. type)
        end
      end
      -- Who files the queue may be beyond it already.
      if repair and score and its ~= "-" then
        line_up(keys, { { id = id, score = score, record = redis.call("HGET", keys.jobs, id) } })
      end
      return "stands in a lane that is not its own"
    end
    local lane = type .. " " .. group
    local parked = redis.call("ZSCORE", keys.parked, lane)
    if first_of(lane) ~= member then return nil end
    local open = redis.call("ZSCORE", keys.heads, group .. " " .. rank .. " " .. type)
    if open and parked then
      if repair then redis.call("ZREM", keys.parked, lane) end
      return "is first of a lane that is open and held"
    end
    if not open and not parked then
      if repair then
        redis.call("ZADD", keys.heads, 0, group .. " " .. rank .. " " .. type)
        redis.call("ZADD", keys.turns, "NX", 0, group)
      end
      return "is first of a lane that nobody looks at"
    end
    if open and not takes_turns(group) then
      if repair then redis.call("ZADD", keys.turns, 0, group) end
      return "waits in a group that takes no turns"
    end
  elseif structure == "heads" then
    local group, rank, type = string.match(member, "^(%S*) (%S+) (%S+)$")
    local _, first = first_of((type or "") .. " " .. (group or ""))
    if first ~= rank then
      strike()
      return "is no head of its lane"
    end
  elseif structure == "turns" then
    if redis.call("ZSCORE", keys.parked, member) then
      strike()
      return "is a group that is held and takes turns"
    end
  elseif structure == "parked" then
    local type, group = string.match(member, "^(%S+) (%S*)$")
    local tag = tonumber(redis.call("ZSCORE", keys.parked, member))
    local line = type and string.format("%s %020.6f %s", type, tag, group) or "* " .. member
    local scope = type and "t" .. type or "g" .. member
    if type and not first_of(member) then
      strike()
      if repair then redis.call("ZREM", keys.lines, line) end
      return "is a lane that is held without a job"
    end
    if not redis.call("ZSCORE", keys.lines, line) or not redis.call("ZSCORE", keys.waits, scope) then
      if repair then
        redis.call("ZADD", keys.lines, 0, line)
        redis.call("ZADD", keys.waits, 0, scope)
      end
      return "is held but waits for nothing"
    end
  elseif structure == "lines" then
    local type, tag, group = string.match(member, "^(%w%S*) (%d+%.%d+) (%S*)$")
    local held = redis.call("ZSCORE", keys.parked, type and type .. " " .. group or string.sub(member, 3))
    if not held or type and string.format("%020.6f", tonumber(held)) ~= tag then
      strike()
      return "waits but is not held"
    end
  elseif structure == "slots" then
    local id, held = string.match(member, "^%S+ (%S+)$"), false
    local lease = id and redis.call("HGET", keys.leases, id)
    for _, slot in ipairs(lease and slots_of(keys, id, lease, {}) or {}) do held = held or slot == member end
    if not held then
      strike()
      return "is a slot that no run holds"
    end
  end
  return nil
end
