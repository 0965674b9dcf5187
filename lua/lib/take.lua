-- @include lib/int
-- The write phase of `choose`: the first `upto` of its jobs leave their lanes; those in `void` turned out to be none, and use no
-- limit. Answers the turn of the last of them, a field of `counters`. The caller has taken them out of `ready`, and has read
-- every key.
local function take(keys, scopes, plan, upto, void, types)
  local heads_out, heads_in, turns_out, turns_in, parked_out, lines_out = {}, {}, {}, {}, {}, {}
  local parked, lines, waits, slots, turn = {}, {}, {}, {}, nil
  local room, lanes, ids, whole = scopes.room, plan.lanes, plan.ids, upto == #plan.ids and next(void) == nil
  local counting = scopes.counting
  if not whole then scopes.forget() end
  for _, group in ipairs(plan.groups) do group.taken = 0 end
  for i = 1, upto do
    local lane, id = lanes[i], ids[i]
    local group = lane.group
    lane.taken, group.taken = lane.taken + 1, group.taken + 1
    if not turn or plan.tags[i] > turn then turn = plan.tags[i] end
    if (counting or not whole) and not void[id] then
      if counting then
        slots[#slots + 1], slots[#slots + 2] = 0, "t" .. lane.type .. " " .. id
        if lane.scope.probe then slots[#slots + 1], slots[#slots + 2] = 0, "b" .. lane.type .. " " .. id end
        if group.name ~= "" then slots[#slots + 1], slots[#slots + 2] = 0, "g" .. group.name .. " " .. id end
      end
      if not whole then
        scopes.use(scopes.queue(), plan.costs[i])
        scopes.use(lane.scope, plan.costs[i])
        scopes.use(group.scope, plan.costs[i])
      end
    end
  end

  for _, group in ipairs(plan.groups) do
    local name, open, taken = group.name, false, group.taken
    local tag = group.first + taken / group.weight
    for _, lane in ipairs(group.lanes) do
      local rest = lane.jobs[lane.taken + 1]
      local rank = rest and string.sub(rest, #lane.name + 2, #lane.name + 18) or #lane.jobs == 0 and lane.head
      local aside = lane.aside
      local hold = rank and not aside and room(lane.scope) == 0
      open = open or rank and not hold and not aside
      if aside then
        -- It waited for its type already, and goes on to as long as anything of it is left.
        if not rank then
          parked_out[#parked_out + 1] = lane.name
          lines_out[#lines_out + 1] = string.format("%s %020.6f %s", lane.type, aside, name)
        end
      elseif lane.taken > 0 or hold then
        heads_out[#heads_out + 1] = name .. " " .. lane.head .. " " .. lane.type
        if rank and not hold then
          heads_in[#heads_in + 1], heads_in[#heads_in + 2] = 0, name .. " " .. rank .. " " .. lane.type
        end
      end
      if hold then
        parked[#parked + 1], parked[#parked + 2] = string.format("%.17g", tag), lane.name
        lines[#lines + 1], lines[#lines + 2] = 0, string.format("%s %020.6f %s", lane.type, tag, name)
        waits[#waits + 1], waits[#waits + 2] = int(scopes.again(lane.scope)), lane.scope.name
      end
    end
    if group.scope and room(group.scope) == 0 then
      turns_out[#turns_out + 1] = name
      parked[#parked + 1], parked[#parked + 2] = string.format("%.17g", tag), name
      lines[#lines + 1], lines[#lines + 2] = 0, "* " .. name
      waits[#waits + 1], waits[#waits + 2] = int(scopes.again(group.scope)), group.scope.name
    elseif taken > 0 and not group.absent then
      turns_in[#turns_in + 1], turns_in[#turns_in + 2] = string.format("%.17g", tag), name
    elseif group.idle and not open then
      turns_out[#turns_out + 1] = name
    end
  end
  local queue = scopes.queue()
  if room(queue) == 0 then waits[#waits + 1], waits[#waits + 2] = int(scopes.again(queue)), "q" end
  for _, type in ipairs(types) do
    local scope = scopes.type(type)
    if room(scope) == 0 then waits[#waits + 1], waits[#waits + 2] = int(scopes.again(scope)), scope.name end
  end

  local function write(command, key, list)
    for from = 1, #list, 1000 do redis.call(command, key, unpack(list, from, math.min(from + 999, #list))) end
  end
  if upto > 0 then redis.call("ZREM", keys.lanes, unpack(plan.members, 1, upto)) end
  write("ZREM", keys.heads, heads_out)
  write("ZREM", keys.turns, turns_out)
  write("ZREM", keys.parked, parked_out)
  write("ZREM", keys.lines, lines_out)
  write("ZADD", keys.heads, heads_in)
  write("ZADD", keys.turns, turns_in)
  write("ZADD", keys.parked, parked)
  write("ZADD", keys.lines, lines)
  write("ZADD", keys.waits, waits)
  write("ZADD", keys.slots, slots)
  if plan.after then
    for type, group in pairs(plan.after) do redis.call("HSET", keys.meters, "after " .. type, group) end
  end
  for _, type in ipairs(plan.marks or {}) do
    local scope = scopes.type(type)
    redis.call("ZADD", keys.waits, "NX", int(scopes.again(scope)), scope.name)
  end
  local moved, over = scopes.moved()
  for _, field in ipairs(over) do redis.call("HDEL", keys.meters, field) end
  for i = 1, #moved, 2 do redis.call("HSET", keys.meters, moved[i], moved[i + 1]) end
  return turn and not plan.marks and string.format("%.17g", turn) or nil
end
