-- @include lib/lookahead
-- @include lib/lane_of
-- @include lib/lane_member
-- @include lib/line_up
-- What is wrong with a member of `lanes` or `turns` where groups take turns and there are no limits, as a sentence, or nil; with
-- `repair` it is put right. The caller has read every key.
local function turn_fault(keys, structure, member, repair)
  local most, group, rank, id = lookahead(), string.match(member, "^(%S*) (%S+) ?(%S*)$")
  local name = group or ""
  local line = redis.call("ZRANGEBYLEX", keys.lanes, "[" .. name .. " ", "(" .. name .. "!", "LIMIT", 0, most + 1)
  local marks = { name .. " +", name .. " ." }

  -- How many of the line have their turns, and since when; nil where they are not the first ones, one by one.
  local function booked_of()
    local tags = redis.call("ZMSCORE", keys.turns, marks[1], marks[2], unpack(line))
    local more, over, first = tonumber(tags[1] or nil), tonumber(tags[2] or nil), tonumber(tags[3] or nil)
    local mark, n = more or over, 0
    for i = 1, #line do
      local tag = tonumber(tags[i + 2] or nil)
      if tag and (n < i - 1 or tag ~= first + n) then return nil end
      if tag then n = i end
    end
    if n > most or more and over or (more ~= nil) ~= (#line > n) then return nil end
    if mark and n > 0 and mark ~= first + n or not mark and #line > 0 then return nil end
    return n
  end

  local function rebook()
    local tags = redis.call("ZMSCORE", keys.turns, marks[1], marks[2], unpack(line))
    local start = math.huge
    for i = 1, #line + 2 do start = math.min(start, tonumber(tags[i] or nil) or math.huge) end
    if start == math.huge then start = tonumber(redis.call("HGET", keys.counters, "turn") or nil) or 0 end
    redis.call("ZREM", keys.turns, marks[1], marks[2], unpack(line))
    local n = math.min(#line, most)
    for i = 1, n do redis.call("ZADD", keys.turns, string.format("%.17g", start + i - 1), line[i]) end
    redis.call("ZADD", keys.turns, string.format("%.17g", start + n), marks[#line > n and 1 or 2])
  end

  if structure == "lanes" then
    local score = id and tonumber(redis.call("ZSCORE", keys.ready, id) or nil)
    local its, of, cost = lane_of(id and redis.call("HGET", keys.jobs, id) or "")
    -- What was damaged after it was filed is where it was: a claim will bury it.
    local same = score and (its == "-" and rank_text(score) == rank or lane_member(keys, its, of, score, id, cost) == member)
    if not same then
      if repair then
        redis.call("ZREM", keys.lanes, member)
        redis.call("ZREM", keys.turns, member)
        line = redis.call("ZRANGEBYLEX", keys.lanes, "[" .. name .. " ", "(" .. name .. "!", "LIMIT", 0, most + 1)
        rebook()
        -- Who files the queue may be beyond it already.
        if score and its ~= "-" then line_up(keys, { { id = id, score = score, record = redis.call("HGET", keys.jobs, id) } }) end
      end
      return "stands in a lane that is not its own"
    end
    if line[1] ~= member or booked_of() then return nil end
    if repair then rebook() end
    return "is first of a group whose turns are not its first jobs', one by one"
  elseif structure == "turns" then
    local known = rank == "+" or rank == "."
    for i = 1, math.min(#line, most) do known = known or line[i] == member end
    if known and (booked_of() or #line > 0) then return nil end
    if repair then
      redis.call("ZREM", keys.turns, member)
      if #line > 0 then rebook() end
    end
    return "is a turn without a job"
  end
  if repair then redis.call("ZREM", keys[structure], member) end
  return "belongs to a queue that has limits"
end
