-- Who of some types runs next, for workers that have no handler for the others: reads only, and answers what `choose` does.
-- Groups take turns in order of their names, each type going on after the group that it served last; of the types the one
-- whose next job has the best score comes first.
local function choose_only(keys, scopes, count, wanted)
  local plan = { members = {}, lanes = {}, ids = {}, scores = {}, costs = {}, tags = {}, groups = {}, more = false, marks = {} }
  local queue, looked, n = scopes.queue(), 0, 0
  local groups, lanes, lines = {}, {}, {}

  local function group_of(name)
    if groups[name] then return groups[name] end
    local tag, held = redis.call("ZSCORE", keys.turns, name), redis.call("ZSCORE", keys.parked, name)
    local its = { name = name, lanes = {}, taken = 0, first = tonumber(tag or held or nil) or 0, absent = not tag, held = held }
    its.scope, its.weight = scopes.group(name)
    groups[name] = its
    return its
  end

  local function lane_at(type, member)
    local group, rank = string.match(member, "^%S+ (%S*) (%S+)")
    local name = type .. " " .. group
    local lane = lanes[name]
    if not lane then
      lane = { name = name, type = type, group = group_of(group), head = rank, rank = rank, jobs = {}, at = 1,
        taken = 0, scope = scopes.type(type), aside = tonumber(redis.call("ZSCORE", keys.parked, name) or nil) }
      lanes[name] = lane
    end
    return lane
  end

  local function fill(lane, want)
    if lane.at <= #lane.jobs then return end
    local first = #lane.jobs > 0 and "(" .. lane.jobs[#lane.jobs] or "[" .. lane.name .. " "
    for _, member in ipairs(redis.call("ZRANGEBYLEX", keys.lanes, first, "(" .. lane.name .. "!", "LIMIT", 0, want + 1)) do
      lane.jobs[#lane.jobs + 1] = member
    end
    local next = lane.jobs[lane.at]
    lane.rank = next and string.sub(next, #lane.name + 2, #lane.name + 18)
  end

  -- Goes on to the next lane of a type that may run, once around at most.
  local function advance(its)
    its.lane = nil
    local start, wrapped = its.after, false
    while looked <= count + 400 do
      looked = looked + 1
      local from = its.after and "(" .. its.type .. " " .. its.after .. "!" or "[" .. its.type .. " "
      local member = redis.call("ZRANGEBYLEX", keys.lanes, from, "(" .. its.type .. "!", "LIMIT", 0, 1)[1]
      if member then
        local lane = lane_at(its.type, member)
        its.after = lane.group.name
        if lane.rank and not lane.group.held and scopes.room(lane.group.scope) > 0 then
          its.lane = lane
          return
        end
        if wrapped and (start == nil or its.after >= start) then return end
      elseif wrapped or not its.after then
        return
      else
        its.after, wrapped = nil, true
      end
    end
    plan.more = true
  end

  for type in string.gmatch(wanted, "%S+") do
    if scopes.room(scopes.type(type)) > 0 then
      local its = { type = type, after = redis.call("HGET", keys.meters, "after " .. type) or nil }
      advance(its)
      lines[#lines + 1] = its
    else
      plan.marks[#plan.marks + 1] = type
    end
  end
  while n < count and scopes.room(queue) > 0 do
    local best
    for _, its in ipairs(lines) do
      if its.lane and (not best or its.lane.rank < best.lane.rank) then best = its end
    end
    if not best then break end
    local lane, group = best.lane, best.lane.group
    if #lane.jobs == 0 then
      group.lanes[#group.lanes + 1] = lane
      if not group.noted then plan.groups[#plan.groups + 1] = group end
      group.noted = true
    end
    for _ = 1, math.min(group.weight, count - n) do
      if scopes.room(queue) == 0 or scopes.room(lane.scope) == 0 or scopes.room(group.scope) == 0 then break end
      fill(lane, math.min(count - n, 100))
      local member = lane.jobs[lane.at]
      if not member then break end
      local rank, id, text = string.match(member, "^%S+ %S* (%S+) (%S+) ?(%d*)$")
      local score = tonumber(string.sub(rank, 2)) - (string.sub(rank, 1, 1) == "0" and 9007199254740991 or 0)
      local cost = tonumber(text) or 1
      n = n + 1
      plan.members[n], plan.lanes[n], plan.ids[n], plan.costs[n] = member, lane, id, cost
      plan.scores[n], plan.tags[n] = string.format("%.0f", score), group.first + group.taken / group.weight
      group.taken, lane.at = group.taken + 1, lane.at + 1
      for _, scope in ipairs({ queue, lane.scope, group.scope }) do scopes.use(scope, cost) end
      fill(lane, 1)
      local next = lane.jobs[lane.at]
      lane.rank = next and string.sub(next, #lane.name + 2, #lane.name + 18)
    end
    best.served = group.name
    if scopes.room(lane.scope) > 0 then advance(best) else best.lane = nil end
  end
  for _, its in ipairs(lines) do
    if its.served then plan.after = plan.after or {}; plan.after[its.type] = its.served end
    plan.more = plan.more or its.lane ~= nil and scopes.room(queue) > 0
  end
  return plan
end
