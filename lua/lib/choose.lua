-- Who runs next: reads only, and answers the jobs to be taken with all that `take` needs.
--
-- Groups take turns by weighted fair queueing (start-time fair queueing: each has a tag, the lowest is served, which moves
-- it on by 1/weight a job). In a group the lane with the best head is served, unless its type has no room. All limits of a
-- job have room before it is chosen; what has none is set aside as a whole, a lane or a group, and never a job of it.
local function choose(keys, scopes, count)
  local plan = { picks = {}, groups = {}, more = false }
  local picks, queue = plan.picks, scopes.queue()
  local line, at, fetched, edge, ended = {}, 1, 0, -math.huge, false

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
    local page = redis.call("ZRANGE", keys.turns, fetched, fetched + size - 1, "WITHSCORES")
    for i = 1, #page, 2 do
      local tag = tonumber(page[i + 1])
      insert({ name = page[i], tag = tag, first = tag, lanes = {}, offset = 0, taken = 0 })
      edge = tag
    end
    fetched, ended = fetched + #page / 2, #page < 2 * size
  end

  -- The next lane of a group that none of its open ones comes before: its heads are read two at a time.
  local function next_head(group)
    if not group.heads then
      local start = group.name .. " "
      local last = "(" .. group.name .. "!"
      group.heads = redis.call("ZRANGEBYLEX", keys.heads, "[" .. start, last, "LIMIT", group.offset, 2)
      group.offset, group.nth = group.offset + #group.heads, 1
    end
    local head = group.heads[group.nth]
    if not head then return nil end
    return string.sub(head, #group.name + 2, #group.name + 18), string.sub(head, #group.name + 20)
  end

  local looked = 0
  local function best_of(group)
    while true do
      local best
      for _, lane in ipairs(group.lanes) do
        if lane.rank and not lane.parked and (not best or lane.rank < best.rank) then best = lane end
      end
      local rank, type = next_head(group)
      if rank and (not best or rank < best.rank) then
        best = { type = type, group = group, name = type .. " " .. group.name, head = rank, rank = rank, jobs = {}, at = 1,
          scope = scopes.type(type) }
        group.lanes[#group.lanes + 1] = best
        group.nth = group.nth + 1
        if group.nth > #group.heads and #group.heads == 2 then group.heads = nil end
      end
      if not best then return nil end
      if scopes.room(best.scope) > 0 then return best end
      best.parked, looked = true, looked + 1
    end
  end

  local function member_of(lane, want)
    if lane.at > #lane.jobs then
      local first = #lane.jobs > 0 and "(" .. lane.jobs[#lane.jobs] or "[" .. lane.name .. " "
      for _, member in ipairs(redis.call("ZRANGEBYLEX", keys.lanes, first, "(" .. lane.name .. "!", "LIMIT", 0, want + 1)) do
        lane.jobs[#lane.jobs + 1] = member
      end
    end
    return lane.jobs[lane.at]
  end

  while #picks < count and scopes.room(queue) > 0 do
    if not ended and (at > #line or line[at].tag > edge) then fetch() end
    local group = line[at]
    if not group then break end
    at, looked = at + 1, looked + 1
    if looked > count + 400 then
      plan.more = true
      break
    end
    if not group.weight then
      group.scope, group.weight = scopes.group(group.name)
      plan.groups[#plan.groups + 1] = group
    end
    local rival = math.min(line[at] and line[at].tag or math.huge, ended and math.huge or edge)
    local turns = rival == math.huge and count or math.max(1, math.ceil((rival - group.tag) * group.weight - 0.000001))
    for _ = 1, math.min(turns, count - #picks) do
      if scopes.room(queue) == 0 or scopes.room(group.scope) == 0 then break end
      local lane = best_of(group)
      local member = lane and member_of(lane, math.min(turns, count - #picks))
      if not member then
        group.idle = true
        break
      end
      local rank, id, cost = string.match(member, "^%S+ %S* (%S+) (%S+) ?(%d*)$")
      local score = tonumber(string.sub(rank, 2)) - (string.sub(rank, 1, 1) == "0" and 9007199254740991 or 0)
      cost = tonumber(cost) or 1
      picks[#picks + 1] = { id = id, score = string.format("%.0f", score), member = member, lane = lane, cost = cost,
        tag = group.tag }
      group.taken = group.taken + 1
      group.tag = group.first + group.taken / group.weight
      for _, scope in ipairs({ queue, lane.scope, group.scope }) do scopes.use(scope, cost) end
      lane.at = lane.at + 1
      local next = member_of(lane, 1)
      lane.rank = next and string.sub(next, #lane.name + 2, #lane.name + 18)
    end
    if not group.idle and scopes.room(group.scope) > 0 then insert(group) end
  end
  -- Whether a group that is in line still, or one beyond what was read, may have more to run.
  local function open(group)
    if not group.weight or not group.heads or group.nth <= #group.heads then return true end
    for _, lane in ipairs(group.lanes) do
      if lane.rank and scopes.room(lane.scope) > 0 then return true end
    end
    return false
  end
  if scopes.room(queue) > 0 and not plan.more then
    plan.more = not ended
    for n = at, #line do
      if plan.more then break end
      plan.more = open(line[n])
    end
  end
  return plan
end
