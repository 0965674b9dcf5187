-- Lets go what an id that is about to be gone waited for, and who waited for it, up to 1,000 of each; the rest is left to the
-- sweeps. Who still has to be told of its end is kept until they are. The caller has read every key.
local function forsake(keys, id, now)
  local first, last, more = "[" .. id .. " ", "(" .. id .. "!", false
  local waited = redis.call("ZRANGEBYLEX", keys.awaits, first, last, "LIMIT", 0, 1000)
  if #waited > 0 then
    local fields = { id }
    for i, member in ipairs(waited) do fields[i + 1] = id .. " " .. string.sub(member, #id + 3) end
    redis.call("HDEL", keys.parents, unpack(fields))
    redis.call("ZREM", keys.awaits, unpack(waited))
    redis.call("ZREM", keys.opening, id)
    more = #waited == 1000
  end
  if not redis.call("ZSCORE", keys.signals, id) then
    local waiting = redis.call("ZRANGEBYLEX", keys.dependents, first, last, "LIMIT", 0, 1000)
    if #waiting > 0 then redis.call("ZREM", keys.dependents, unpack(waiting)) end
    more = more or #waiting == 1000
  end
  if more then redis.call("ZADD", keys.expiries, string.format("%.0f", now), "~" .. id) end
end
