-- @include lib/laned
-- Files jobs of `ready` into their lanes; each has id, score and record (its first line is enough). Again for one that is
-- filed changes nothing. A lane that is held stays so, and a group that is held. The caller has read every key (lib/laned).
local function line_up(keys, list)
  -- @include lib/lane_of
  -- @include lib/lane_member
  local lanes, order = {}, {}
  for _, job in ipairs(list) do
    local type, group, cost = lane_of(job.record)
    local name, score = keys.limited and type .. " " .. group or group, tonumber(job.score)
    local member, lane = lane_member(keys, type, group, job.score, job.id, cost), lanes[name]
    if not lane then
      lane = { name = name, type = type, group = group, best = score, last = score, joining = { member } }
      lanes[name], order[#order + 1] = lane, lane
    else
      lane.mixed, lane.last = lane.mixed or score <= lane.last, score
      if score < lane.best then lane.best = score end
      lane.joining[#lane.joining + 1] = member
    end
  end
  if not keys.limited then
    -- @include lib/book
    book(keys, order)
    return
  end
  local members, heads, out, turns = {}, {}, {}, {}
  local turn = redis.call("HGET", keys.counters, "turn") or "0"
  for _, lane in ipairs(order) do
    local name = lane.name
    local head = redis.call("ZRANGEBYLEX", keys.lanes, "[" .. name .. " ", "(" .. name .. "!", "LIMIT", 0, 1)[1]
    for _, member in ipairs(lane.joining) do members[#members + 1], members[#members + 2] = 0, member end
    if not redis.call("ZSCORE", keys.parked, name) then
      local former, best = head and string.sub(head, #name + 2, #name + 18), rank_text(lane.best)
      if not former or best < former then
        if former then out[#out + 1] = lane.group .. " " .. former .. " " .. lane.type end
        heads[#heads + 1], heads[#heads + 2] = 0, lane.group .. " " .. best .. " " .. lane.type
      end
      if not redis.call("ZSCORE", keys.parked, lane.group) then
        turns[#turns + 1], turns[#turns + 2] = turn, lane.group
      end
    end
  end
  if #members > 0 then redis.call("ZADD", keys.lanes, unpack(members)) end
  if #out > 0 then redis.call("ZREM", keys.heads, unpack(out)) end
  if #heads > 0 then redis.call("ZADD", keys.heads, unpack(heads)) end
  if #turns > 0 then redis.call("ZADD", keys.turns, "NX", unpack(turns)) end
end
