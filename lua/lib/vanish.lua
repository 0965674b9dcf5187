-- @include lib/free_key
-- @include lib/forsake
-- Removes jobs whose run succeeded and whose own retention is 0. They go from running to gone, nothing is stored first: only a
-- tombstone with the line of their run (`runs`) stays for 60 s. The caller has taken them out of running and has read every key.
local function vanish(keys, ids, runs, now)
  local heads = redis.call("HMGET", keys.jobs, unpack(ids))
  local tombs, times, start, soon = {}, {}, string.format("%.0f|succeeded|", now), string.format("%.0f", now + 60000)
  for i, id in ipairs(ids) do
    local head, till = string.match(heads[i] or "", "^[^\n]*\n[^\n]*") or "", soon
    if string.find(head, " u:", 1, true) then
      till = string.format("%.0f", math.max(now + 60000, free_key(keys.known, id, head, now)))
    end
    tombs[2 * i - 1], tombs[2 * i] = id, start .. runs[i] .. "\n" .. head
    times[2 * i - 1], times[2 * i] = till, id
  end
  redis.call("HDEL", keys.jobs, unpack(ids))
  if redis.call("HLEN", keys.bodies) > 0 then redis.call("HDEL", keys.bodies, unpack(ids)) end
  if redis.call("HLEN", keys.attempts) > 0 then redis.call("HDEL", keys.attempts, unpack(ids)) end
  redis.call("HSET", keys.known, unpack(tombs))
  redis.call("ZADD", keys.expiries, unpack(times))
  if redis.call("HLEN", keys.notes) > 0 then
    local fields = {}
    for _, id in ipairs(ids) do
      for _, field in ipairs({ ":progress", ":checkpoint", ":edits" }) do fields[#fields + 1] = id .. field end
    end
    redis.call("HDEL", keys.notes, unpack(fields))
  end
  if redis.call("ZCARD", keys.logs) > 0 then
    for _, id in ipairs(ids) do redis.call("ZREMRANGEBYLEX", keys.logs, "[" .. id .. ":", "(" .. id .. ";") end
  end
  if redis.call("ZCARD", keys.awaits) + redis.call("ZCARD", keys.dependents) > 0 then
    for _, id in ipairs(ids) do forsake(keys, id, now) end
  end
end
