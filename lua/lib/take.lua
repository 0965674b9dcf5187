-- @include lib/int
-- The write phase of `choose`: the first `upto` of its jobs leave their lanes; those in `void` turned out to be none, and use no
-- limit. The caller has taken them out of `ready`, and has read every key.
local function take(keys, scopes, plan, upto, void, types)
  local changed = { lanes = {}, heads_out = {}, heads_in = {}, turns_out = {}, turns = {}, parked = {}, lines = {}, waits = {},
    slots = {}, parked_out = {}, lines_out = {} }
  local function note(list, ...)
    for _, value in ipairs({ ... }) do list[#list + 1] = value end
  end
  local whole = upto == #plan.picks and next(void) == nil
  if not whole then scopes.forget() end
  local turn
  for _, group in ipairs(plan.groups) do
    group.taken = 0
    for _, lane in ipairs(group.lanes) do lane.taken = 0 end
  end
  for i = 1, upto do
    local pick = plan.picks[i]
    local lane, group = pick.lane, pick.lane.group
    lane.taken, group.taken = lane.taken + 1, group.taken + 1
    turn = math.max(turn or pick.tag, pick.tag)
    note(changed.lanes, pick.member)
    if not void[pick.id] then
      note(changed.slots, 0, "t" .. lane.type .. " " .. pick.id)
      if group.name ~= "" then note(changed.slots, 0, "g" .. group.name .. " " .. pick.id) end
      if not whole then
        for _, scope in ipairs({ scopes.queue(), lane.scope, group.scope }) do scopes.use(scope, pick.cost) end
      end
    end
  end

  for _, group in ipairs(plan.groups) do
    local tag = group.first + group.taken / group.weight
    local text = string.format("%.17g", tag)
    local held, open = scopes.room(group.scope) == 0, false
    for _, lane in ipairs(group.lanes) do
      local rest = lane.jobs[lane.taken + 1]
      local rank = rest and string.sub(rest, #lane.name + 2, #lane.name + 18) or #lane.jobs == 0 and lane.head
      local parked = rank and not lane.aside and scopes.room(lane.scope) == 0
      open = open or rank and not parked and not lane.aside
      if lane.aside then
        -- It waited for its type already, and goes on to where anything of it is left.
        if not rank then
          note(changed.parked_out, lane.name)
          note(changed.lines_out, string.format("%s %020.6f %s", lane.type, lane.aside, group.name))
        end
      elseif lane.taken > 0 or parked then
        note(changed.heads_out, group.name .. " " .. lane.head .. " " .. lane.type)
      end
      if parked then
        note(changed.parked, text, lane.name)
        note(changed.lines, 0, string.format("%s %020.6f %s", lane.type, tag, group.name))
        note(changed.waits, int(scopes.again(lane.scope)), lane.scope.name)
      elseif rank and lane.taken > 0 and not lane.aside then
        note(changed.heads_in, 0, group.name .. " " .. rank .. " " .. lane.type)
      end
    end
    if held then
      note(changed.turns_out, group.name)
      note(changed.parked, text, group.name)
      note(changed.lines, 0, "* " .. group.name)
      note(changed.waits, int(scopes.again(group.scope)), group.scope.name)
    elseif group.taken > 0 and not group.absent then
      note(changed.turns, text, group.name)
    elseif group.idle and not open then
      note(changed.turns_out, group.name)
    end
  end
  local queue = scopes.queue()
  if scopes.room(queue) == 0 then note(changed.waits, int(scopes.again(queue)), "q") end
  for _, type in ipairs(types) do
    local scope = scopes.type(type)
    if scopes.room(scope) == 0 then note(changed.waits, int(scopes.again(scope)), scope.name) end
  end

  local function write(command, key, list)
    for from = 1, #list, 1000 do redis.call(command, key, unpack(list, from, math.min(from + 999, #list))) end
  end
  write("ZREM", keys.lanes, changed.lanes)
  write("ZREM", keys.heads, changed.heads_out)
  write("ZREM", keys.turns, changed.turns_out)
  write("ZREM", keys.parked, changed.parked_out)
  write("ZREM", keys.lines, changed.lines_out)
  write("ZADD", keys.heads, changed.heads_in)
  write("ZADD", keys.turns, changed.turns)
  write("ZADD", keys.parked, changed.parked)
  write("ZADD", keys.lines, changed.lines)
  write("ZADD", keys.waits, changed.waits)
  write("ZADD", keys.slots, changed.slots)
  if plan.after then
    for type, group in pairs(plan.after) do redis.call("HSET", keys.meters, "after " .. type, group) end
  end
  for _, type in ipairs(plan.marks or {}) do
    local scope = scopes.type(type)
    redis.call("ZADD", keys.waits, "NX", int(scopes.again(scope)), scope.name)
  end
  if turn and not plan.marks then redis.call("HSET", keys.counters, "turn", string.format("%.17g", turn)) end
  scopes.write()
end
