-- Who runs next: reads only, and answers the jobs to be taken with all that `take` needs.
--
-- Groups take turns by weighted fair queueing (start-time fair queueing: each has a tag, the lowest is served, which moves
-- it on by 1/weight a job). In a group the lane with the best head is served, unless its type has no room. All limits of a
-- job have room before it is chosen; what has none is set aside as a whole, a lane or a group, and never a job of it.
local function choose(keys, scopes, count)
  local members, lane_of_pick, ids, scores, costs, tags = {}, {}, {}, {}, {}, {}
  local plan = { members = members, lanes = lane_of_pick, ids = ids, scores = scores, costs = costs, tags = tags,
    groups = {}, more = false }
  local queue, room, use = scopes.queue(), scopes.room, scopes.use
  local line, at, fetched, edge, ended = {}, 1, 0, -math.huge, false
  local heads_key, lanes_key, sub, call = keys.heads, keys.lanes, string.sub, redis.call

  local function insert(group)
    local low, high = at, #line + 1
    while low < high do
      local middle = math.floor((low + high) / 2)
      if line[middle].tag <= group.tag then low = middle + 1 else high = middle end
    end
    table.insert(line, low, group)
  end

  local function fetch()
    local size = math.min(count + 7, 100)
    local page = call("ZRANGE", keys.turns, fetched, fetched + size - 1, "WITHSCORES")
    for i = 1, #page, 2 do
      edge = tonumber(page[i + 1])
      -- Fields without a value yet give the table its size at once.
      local group = { name = page[i], tag = edge, first = edge, lanes = {}, offset = 0, taken = 0, nth = 1,
        weight = nil, scope = nil, heads = nil, idle = nil }
      if #line == 0 or line[#line].tag <= edge then line[#line + 1] = group else insert(group) end
    end
    fetched, ended = fetched + #page / 2, #page < 2 * size
  end

  -- The open lane of a group whose head is the best, heads are read two at a time; nil for none, with true where this call has
  -- looked at enough: what is held is set aside then, and the next call goes on.
  local looked, most, none = 0, count + 400, {}
  local function best_of(group)
    local name = group.name
    for _ = 1, most + 1 do
      local best
      for _, lane in ipairs(group.lanes) do
        if lane.rank and not lane.parked and (not best or lane.rank < best.rank) then best = lane end
      end
      if not group.heads then
        group.heads = call("ZRANGEBYLEX", heads_key, "[" .. name .. " ", "(" .. name .. "!", "LIMIT", group.offset, 2)
        group.offset, group.nth = group.offset + #group.heads, 1
      end
      local head = group.heads[group.nth]
      local rank = head and sub(head, #name + 2, #name + 18)
      if rank and (not best or rank < best.rank) then
        local type = sub(head, #name + 20)
        local scope = scopes.type(type)
        best = { type = type, group = group, name = type .. " " .. name, head = rank, rank = rank, jobs = none, at = 1,
          scope = scope, limited = scope.limited, taken = 0, parked = nil, spent = nil }
        group.lanes[#group.lanes + 1] = best
        group.nth = group.nth + 1
        if group.nth > 2 then group.heads = nil end
      end
      if not best then return nil end
      if not best.limited or room(best.scope) > 0 then return best end
      best.parked, looked = true, looked + 1
      if looked > most then break end
    end
    return nil, true
  end

  local function fill(lane, want)
    if lane.spent then return end
    local jobs, name = lane.jobs, lane.name
    local first = #jobs > 0 and "(" .. jobs[#jobs] or "[" .. name .. " "
    local page = call("ZRANGEBYLEX", lanes_key, first, "(" .. name .. "!", "LIMIT", 0, want + 1)
    lane.spent = #page <= want
    if #jobs == 0 then
      lane.jobs = page
    else
      for _, member in ipairs(page) do jobs[#jobs + 1] = member end
    end
  end

  local n = 0
  while n < count and room(queue) > 0 do
    if not ended and (at > #line or line[at].tag > edge) then fetch() end
    local group = line[at]
    if not group then break end
    at, looked = at + 1, looked + 1
    if looked > most then
      at, plan.more = at - 1, true
      break
    end
    if not group.weight then
      group.scope, group.weight = scopes.group(group.name)
      plan.groups[#plan.groups + 1] = group
    end
    local rival = math.min(line[at] and line[at].tag or math.huge, ended and math.huge or edge)
    local turns = count - n
    if rival ~= math.huge then
      turns = math.min(turns, math.max(1, math.ceil((rival - group.tag) * group.weight - 0.000001)))
    end
    local scope, weight, first = group.scope, group.weight, group.first
    for left = turns, 1, -1 do
      if scope and room(scope) == 0 or queue.limited and room(queue) == 0 then break end
      local lane, cut = best_of(group)
      if not lane then
        group.idle = not cut
        break
      end
      if not lane.jobs[lane.at] then fill(lane, left) end
      local member, from = lane.jobs[lane.at], #lane.name + 2
      local rank, id, cost = sub(member, from, from + 16), sub(member, from + 18), 1
      local space = string.find(id, " ", 1, true)
      if space then id, cost = sub(id, 1, space - 1), tonumber(sub(id, space + 1)) end
      n = n + 1
      members[n], lane_of_pick[n], ids[n], costs[n], tags[n] = member, lane, id, cost, group.tag
      scores[n] = sub(rank, 1, 1) == "1" and sub(rank, 2) or string.format("%.0f", tonumber(sub(rank, 2)) - 9007199254740991)
      group.taken = group.taken + 1
      group.tag = first + group.taken / weight
      if queue.limited then use(queue, cost) end
      if lane.limited then use(lane.scope, cost) end
      if scope then use(scope, cost) end
      lane.at = lane.at + 1
      if not lane.jobs[lane.at] then fill(lane, 1) end
      local next = lane.jobs[lane.at]
      lane.rank = next and sub(next, from, from + 16)
    end
    if not group.idle and (not scope or room(scope) > 0) then insert(group) end
  end

  -- Whether a group that is in line still, or one beyond what was read, may have more to run.
  local function open(group)
    if not group.weight or not group.heads or group.nth <= #group.heads then return true end
    for _, lane in ipairs(group.lanes) do
      if lane.rank and (not lane.limited or room(lane.scope) > 0) then return true end
    end
    return false
  end
  if not plan.more and room(queue) > 0 then
    plan.more = not ended
    for i = at, #line do
      if plan.more then break end
      plan.more = open(line[i])
    end
  end
  return plan
end
