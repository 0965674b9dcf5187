-- @include lib/lookahead
-- Jobs join lines, or leave them: each of `changes` has its group, and the members of `lanes` that join or the one that leaves.
--
-- The jobs at the front of a line have the group's turns booked, the first ones that it has, one by one: `group rank id` in
-- `turns`. At the next one stands `group +` if more wait behind them, and else `group .`, which is passed over when it comes: a
-- group that comes back before has gained nothing. Joining what stands there changes nothing. The caller has read every key.
local function book(keys, changes)
  if #changes == 0 then return end
  local most, asked, joined, set, out = lookahead(), {}, {}, {}, {}
  -- As the server orders members of one line: their ranks are digits, but what follows `<` compares by its locale.
  local function precedes(one, other)
    local at = string.find(one, " ", 1, true)
    local rank, its = string.sub(one, at, at + 17), string.sub(other, at, at + 17)
    if rank ~= its then return rank < its end
    for i = at + 18, #one do
      local byte, of = string.byte(one, i), string.byte(other, i) or -1
      if byte ~= of then return byte < of end
    end
    return #one < #other
  end
  for i, change in ipairs(changes) do
    local name = change.group
    change.line = redis.call("ZRANGEBYLEX", keys.lanes, "[" .. name .. " ", "(" .. name .. "!", "LIMIT", 0, most + 2)
    asked[3 * i - 2], asked[3 * i - 1], asked[3 * i] = change.line[1] or "", name .. " +", name .. " ."
  end
  local tags, turn = redis.call("ZMSCORE", keys.turns, unpack(asked)), nil
  for i, change in ipairs(changes) do
    local line, leaving, joining = change.line, change.leaving, change.joining or {}
    local more, over = tonumber(tags[3 * i - 1] or nil), tonumber(tags[3 * i] or nil)
    local start, mark = tonumber(tags[3 * i - 2] or nil), more or over
    if not start then
      turn = turn or tonumber(redis.call("HGET", keys.counters, "turn") or nil) or 0
      start = math.max(mark or turn, turn)
      mark = mark and math.max(mark, start)
    end
    local booked = math.max(0, math.min(mark and mark - start or #line, #line, most))
    local front, behind = { unpack(line, 1, booked) }, #line - booked
    for at, member in ipairs(leaving and line or {}) do
      if member == leaving then
        if at <= booked then
          out[#out + 1] = member
          table.remove(front, at)
        else
          behind = behind - 1
        end
        break
      end
    end
    local follows = behind > 0
    if #joining > 1 then table.sort(joining, precedes) end
    for _, member in ipairs(joining) do
      joined[#joined + 1], joined[#joined + 2] = 0, member
      local at, size = #front + 1, #front
      for j = 1, size do
        if not precedes(front[j], member) then
          at = j
          break
        end
      end
      if at > size and (follows or size == most) then
        follows = true
      elseif front[at] ~= member then
        table.insert(front, at, member)
        if size == most then
          out[#out + 1] = table.remove(front)
          follows = true
        end
      end
    end
    for at, member in ipairs(front) do
      if at > booked or member ~= line[at] then
        set[#set + 1], set[#set + 2] = string.format("%.17g", start + at - 1), member
      end
    end
    local ends = start + #front
    local was, other = more, over
    if not follows then was, other = over, more end
    if was ~= ends and #line + #joining > 0 then
      set[#set + 1], set[#set + 2] = string.format("%.17g", ends), change.group .. (follows and " +" or " .")
    end
    if other then out[#out + 1] = change.group .. (follows and " ." or " +") end
    if leaving then redis.call("ZREM", keys.lanes, leaving) end
  end
  if #joined > 0 then redis.call("ZADD", keys.lanes, unpack(joined)) end
  if #out > 0 then redis.call("ZREM", keys.turns, unpack(out)) end
  for from = 1, #set, 1000 do redis.call("ZADD", keys.turns, unpack(set, from, math.min(from + 999, #set))) end
end
