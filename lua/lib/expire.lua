-- @include lib/drop
-- Lets go what stands in `expiries` and whose time is over: ended jobs with a retention of their own,
-- known ids, receipts. Answers how many, and 1 when more are due. The caller has read every key.
local function expire(keys, now, limit)
  local due = redis.call("ZRANGEBYSCORE", keys.expiries, "-inf", string.format("%.0f", now), "LIMIT", 0, limit)
  for _, member in ipairs(due) do
    redis.call("ZREM", keys.expiries, member)
    if string.sub(member, 1, 1) == ":" then
      redis.call("HDEL", keys.receipts, string.sub(member, 2))
    elseif redis.call("HDEL", keys.known, member) == 0 then
      for _, state in ipairs({ "succeeded", "cancelled", "dead" }) do
        if redis.call("ZSCORE", keys[state], member) then drop(keys, state, { member }, now) end
      end
    end
  end
  return #due, #due == limit and 1 or 0
end
