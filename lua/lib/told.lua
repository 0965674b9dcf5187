-- Notes that those who wait for `from` have heard the word of this `order`, up to `upto` in their line. They stay in it only
-- where the job may run again. The caller has read every key.
local function told(keys, from, order, upto)
  local field = from .. ":signal"
  local now, state, rest = string.match(redis.call("HGET", keys.notes, field) or "", "^(%d+)|(%a+)|[^|\n]*(|.*)$")
  if now ~= order then return end
  if state == "enqueue" then
    redis.call("ZREM", keys.signals, from)
    redis.call("HDEL", keys.notes, field)
    return
  end
  if state ~= "succeeded" and redis.call("HEXISTS", keys.jobs, from) == 1 then
    redis.call("HSET", keys.notes, field, order .. "|" .. state .. "|" .. upto .. rest)
    return
  end
  local first = "[" .. from .. " "
  local heard = redis.call("ZRANGEBYLEX", keys.dependents, first, first .. upto, "LIMIT", 0, 1000)
  if #heard > 0 then redis.call("ZREM", keys.dependents, unpack(heard)) end
  if #redis.call("ZRANGEBYLEX", keys.dependents, first, "(" .. from .. "!", "LIMIT", 0, 1) == 0 then
    redis.call("ZREM", keys.signals, from)
    redis.call("HDEL", keys.notes, field)
  end
end
