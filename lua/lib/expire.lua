-- @include lib/excess
-- @include lib/trim
-- Lets go what stands in `expiries` and whose time is over (ended jobs with a retention of their own, known ids,
-- receipts), then what the queue's retention no longer keeps. Answers how many, and 1 when more may be left. The
-- caller has read every key, so that nothing here can fail.
local function expire(keys, now, limit)
  local due = redis.call("ZRANGEBYSCORE", keys.expiries, "-inf", string.format("%.0f", now), "LIMIT", 0, limit)
  for _, member in ipairs(due) do
    redis.call("ZREM", keys.expiries, member)
    local tomb = redis.call("HGET", keys.known, member)
    if string.sub(member, 1, 1) == ":" then
      redis.call("HDEL", keys.receipts, string.sub(member, 2))
    elseif tomb then
      free(keys.known, member, string.match(tomb, "\n(.*)$"), now, true)
      redis.call("HDEL", keys.known, member)
    else
      for _, state in ipairs({ "succeeded", "cancelled", "dead" }) do
        if redis.call("ZSCORE", keys[state], member) then drop(keys, state, { member }, now) end
      end
    end
  end
  local went, more = #due, #due == limit and 1 or 0
  for _, state in ipairs({ "succeeded", "cancelled", "dead" }) do
    local field = "keep_" .. state .. "_"
    local keep = redis.call("HMGET", keys.config, field .. "age", field .. "count", field .. "bytes")
    local beyond = excess(keys, state, keep, now, 0, 0)
    local dropped = beyond and trim(keys, state, beyond, now, limit) or 0
    went, more = went + dropped, dropped == limit and 1 or more
  end
  return went, more
end
