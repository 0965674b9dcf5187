-- Takes a job that is about to leave `ready` otherwise than by a claim out of its lane. The caller has read every key.
local function leave_line(keys, id, record)
  -- @include lib/lane_of
  -- @include lib/lane_member
  local score = tonumber(redis.call("ZSCORE", keys.ready, id) or nil)
  if not score then return end
  local type, group, cost = lane_of(record)
  if not keys.limited then
    -- @include lib/book
    book(keys, { { group = group, leaving = lane_member(keys, type, group, score, id, cost) } })
    return
  end
  local name = type .. " " .. group
  local function head() return redis.call("ZRANGEBYLEX", keys.lanes, "[" .. name .. " ", "(" .. name .. "!", "LIMIT", 0, 1)[1] end
  local first, member = head(), lane_member(keys, type, group, score, id, cost)
  redis.call("ZREM", keys.lanes, member)
  if first ~= member then return end
  local second, tag = head(), redis.call("ZSCORE", keys.parked, name)
  local start, at = group .. " ", #name + 2
  if not tag then
    redis.call("ZREM", keys.heads, start .. string.sub(first, at, at + 16) .. " " .. type)
    if second then redis.call("ZADD", keys.heads, 0, start .. string.sub(second, at, at + 16) .. " " .. type) end
  elseif not second then
    redis.call("ZREM", keys.parked, name)
    redis.call("ZREM", keys.lines, string.format("%s %020.6f %s", type, tonumber(tag), group))
  end
end
