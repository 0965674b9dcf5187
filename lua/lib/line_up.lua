-- Files jobs of `ready` into their lanes; each has id, score and record (its first line is enough). Again for one that is
-- filed changes nothing. A lane that is held stays so, and a group that is held. The caller has read every key (lib/laned).
local function line_up(keys, list)
  -- @include lib/lane_of
  -- @include lib/lane_member
  local lanes = {}
  for _, job in ipairs(list) do
    local type, group, cost = lane_of(job.record)
    local name, score = type .. " " .. group, tonumber(job.score)
    local lane = lanes[name]
    if not lane then
      lane = { type = type, group = group, best = score, members = {} }
      lanes[name] = lane
    end
    lane.best = math.min(lane.best, score)
    lane.members[#lane.members + 1] = 0
    lane.members[#lane.members + 1] = lane_member(type, group, score, job.id, cost)
  end
  local turn = redis.call("HGET", keys.counters, "turn") or "0"
  for name, lane in pairs(lanes) do
    local head = redis.call("ZRANGEBYLEX", keys.lanes, "[" .. name .. " ", "(" .. name .. "!", "LIMIT", 0, 1)[1]
    redis.call("ZADD", keys.lanes, unpack(lane.members))
    if not redis.call("ZSCORE", keys.parked, name) then
      local former, best = head and string.sub(head, #name + 2, #name + 18), rank_text(lane.best)
      if not former or best < former then
        if former then redis.call("ZREM", keys.heads, lane.group .. " " .. former .. " " .. lane.type) end
        redis.call("ZADD", keys.heads, 0, lane.group .. " " .. best .. " " .. lane.type)
      end
      if not redis.call("ZSCORE", keys.parked, lane.group) then redis.call("ZADD", keys.turns, "NX", turn, lane.group) end
    end
  end
end
