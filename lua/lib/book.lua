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
    local behind, former, changed = #line - booked, #line, booked + 1
    for at = #line, booked + 1, -1 do
      if line[at] == leaving then behind = behind - 1 end
      line[at] = nil
    end
    for at = 1, leaving and booked or 0 do
      if line[at] == leaving then
        out[#out + 1] = table.remove(line, at)
        booked, changed = booked - 1, at
        break
      end
    end
    local follows, beyond = behind > 0, false
    if change.mixed then table.sort(joining, precedes) end
    for _, member in ipairs(joining) do
      joined[#joined + 1], joined[#joined + 2] = 0, member
      if not beyond then
        local at = booked + 1
        if booked > 0 and not precedes(line[booked], member) then
          at = 1
          for j = 1, booked - 1 do
            if precedes(line[j], member) then at = j + 1 end
          end
        end
        if at > most or at > booked and follows then
          follows, beyond = true, true
        elseif line[at] ~= member then
          table.insert(line, at, member)
          booked, changed = booked + 1, math.min(changed, at)
          if booked > most then
            out[#out + 1] = table.remove(line)
            booked, follows = most, true
          end
        end
      end
    end
    for at = changed, booked do set[#set + 1], set[#set + 2] = start + at - 1, line[at] end
    local ends, here, other = start + booked, more, over
    if not follows then here, other = over, more end
    if here ~= ends and (former > 0 or #joining > 0) then
      set[#set + 1], set[#set + 2] = ends, asked[3 * i - (follows and 1 or 0)]
    end
    if other then out[#out + 1] = asked[3 * i - (follows and 0 or 1)] end
    if leaving then redis.call("ZREM", keys.lanes, leaving) end
  end
  if #joined > 0 then redis.call("ZADD", keys.lanes, unpack(joined)) end
  if #out > 0 then redis.call("ZREM", keys.turns, unpack(out)) end
  for from = 1, #set, 1000 do redis.call("ZADD", keys.turns, unpack(set, from, math.min(from + 999, #set))) end
end
