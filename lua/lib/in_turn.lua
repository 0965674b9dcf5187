-- @include lib/lookahead
-- Who runs next where groups take turns and there are no limits: reads only, and answers ids and scores, and `take`, the write
-- phase: the first `upto` of them leave their lines. It answers whether more wait, and the turn of the last one, a field of
-- `counters`.
--
-- Groups take turns by start-time fair queueing: each has a tag, the lowest is served, which moves it on by one. Jobs whose turns
-- are booked (lib/book) stand in `turns` themselves; a line is read only where more wait than that, and what is read is booked.
local function in_turn(keys, count)
  local ids, scores, members, tags, passed, owners = {}, {}, {}, {}, {}, {}
  local most, page, at, seen, whole = lookahead(), {}, 1, 0, false
  local line, opened, n, earliest, reached = {}, {}, 0, nil, nil
  local sub, find, byte, call = string.sub, string.find, string.byte, redis.call

  local function score_of(member, from)
    local text = sub(member, from + 1, from + 16)
    return byte(member, from) == 49 and text or string.format("%.0f", (tonumber(text) or 0) - 9007199254740991)
  end

  local function pick(member, space, tag)
    n = n + 1
    members[n], tags[n], passed[n], ids[n] = member, tag, seen, sub(member, space + 19)
    scores[n] = score_of(member, space + 1)
  end

  local function insert(group)
    for i, other in ipairs(line) do
      if group.tag < other.tag or group.tag == other.tag and group.name < other.name then
        table.insert(line, i, group)
        return
      end
    end
    line[#line + 1] = group
  end

  local function read(group, offset, want)
    local last, name = group.jobs[#group.jobs], group.name
    local first = last and "(" .. last or "[" .. name .. " "
    local found = call("ZRANGEBYLEX", keys.lanes, first, "(" .. name .. "!", "LIMIT", offset, want)
    group.spent = #found < want
    if not last then group.jobs = found; return end
    for _, member in ipairs(found) do group.jobs[#group.jobs + 1] = member end
  end

  -- A group whose booked turns have all come: those that this call has picked are in its line still.
  local function open(name, tag)
    local group, offset = { name = name, first = tag, tag = tag, at = 1, nth = seen, jobs = {}, taken = 0 }, 0
    if n > 0 and not earliest then earliest = tonumber(tags[1] or call("ZSCORE", keys.turns, members[1])) end
    if n > 0 and tag - earliest >= 1 then
      local first = call("ZRANGEBYLEX", keys.lanes, "[" .. name .. " ", "(" .. name .. "!", "LIMIT", 0, 1)[1]
      offset = tag - (tonumber(first and call("ZSCORE", keys.turns, first) or nil) or tag)
    end
    read(group, offset, most + 2)
    opened[#opened + 1] = group
    if group.jobs[1] then insert(group) end
  end

  -- Most often there is nothing but booked turns.
  for _, member in ipairs(call("ZRANGE", keys.turns, 0, count - 1)) do
    local space = find(member, " ", 1, true)
    if not space or (byte(member, space + 1) or 0) < 48 then break end
    n, seen = n + 1, seen + 1
    members[n], ids[n] = member, sub(member, space + 19)
    scores[n] = byte(member, space + 1) == 49 and sub(member, space + 2, space + 17) or score_of(member, space + 1)
  end
  -- What is passed over is bounded: a call may come to its end without a job, and says that more wait.
  for _ = 1, 2 * count + 1000 do
    if n == count then break end
    if not page[at] and not whole then
      local size = count - n + (at > 1 and 50 or 1)
      page, at = call("ZRANGE", keys.turns, seen, seen + size - 1, "WITHSCORES"), 1
      whole = #page < 2 * size
    end
    local member, group = page[at], line[1]
    local tag = member and group and tonumber(page[at + 1])
    if member and (not group or tag < group.tag or tag == group.tag and member < group.name) then
      local space = find(member, " ", 1, true)
      local mark = space and byte(member, space + 1) or 46
      tag, at, seen = page[at + 1], at + 2, seen + 1
      if mark >= 48 then
        pick(member, space, tag)
      elseif mark == 43 then
        open(sub(member, 1, space - 1), tonumber(tag))
      else
        reached = tag
      end
    elseif group then
      table.remove(line, 1)
      local rival = math.min(tag or math.huge, line[1] and line[1].tag or math.huge)
      for _ = n + 1, count do
        pick(group.jobs[group.at], #group.name + 1, group.tag)
        owners[n] = group
        group.tag, group.at = group.tag + 1, group.at + 1
        if not group.jobs[group.at] and not group.spent then read(group, 0, #group.jobs) end
        if not group.jobs[group.at] or group.tag >= rival then break end
      end
      if group.jobs[group.at] then insert(group) end
    else
      break
    end
  end

  local function take(upto)
    local gone, set = upto < n and (passed[upto] or upto) or seen, {}
    local turn = tags[upto] or upto > 0 and call("ZSCORE", keys.turns, members[upto]) or n == 0 and reached
    for i = 1, upto do
      if owners[i] then owners[i].taken = owners[i].taken + 1 end
    end
    if upto > 0 then call("ZREM", keys.lanes, unpack(members, 1, upto)) end
    if gone > 0 then call("ZREMRANGEBYRANK", keys.turns, 0, gone - 1) end
    if call("ZCARD", keys.lanes) == 0 then
      -- Nobody waits: whoever comes is next.
      call("UNLINK", keys.turns)
    else
      for _, group in ipairs(opened) do
        if not group.spent and #group.jobs - group.taken <= most then read(group, 0, most + 1) end
        local rest = math.min(#group.jobs - group.taken, most)
        local tag, follows = group.first + group.taken, not group.spent or #group.jobs - group.taken > rest
        if group.nth <= gone then
          for i = 1, rest do
            set[#set + 1], set[#set + 2] = tag + i - 1, group.jobs[group.taken + i]
          end
          set[#set + 1], set[#set + 2] = tag + rest, group.name .. (follows and " +" or " .")
        end
      end
      for from = 1, #set, 1000 do call("ZADD", keys.turns, unpack(set, from, math.min(from + 999, #set))) end
    end
    return call("ZCARD", keys.lanes) > 0, turn and string.format("%.17g", tonumber(turn)) or nil
  end
  return { ids = ids, scores = scores, take = take }
end
