-- Puts new jobs that wait for others into `blocked`, with what each waits for; and notes down who waits for new jobs. The
-- caller has read every key, so that nothing here can fail.
local function tie(keys, list, now)
  local function add(key, members)
    for from = 1, #members, 1000 do
      local scored = {}
      for i = from, math.min(from + 999, #members) do scored[#scored + 1], scored[#scored + 2] = 0, members[i] end
      redis.call("ZADD", key, unpack(scored))
    end
  end
  local awaits, dependents, at = {}, {}, string.format("%.0f", now)
  for _, job in ipairs(list) do
    -- Of a former job of this id nothing may be left that the new one would wait for.
    if redis.call("ZLEXCOUNT", keys.awaits, "[" .. job.id .. " ", "(" .. job.id .. "!") > 0 then
      redis.call("ZREMRANGEBYLEX", keys.awaits, "[" .. job.id .. " ", "(" .. job.id .. "!")
    end
    for _, from in ipairs(job.after) do awaits[#awaits + 1] = job.id .. " ?" .. from end
    for _, id in ipairs(job.before) do dependents[#dependents + 1] = job.id .. " " .. id end
    if #job.after > 0 then
      redis.call("ZADD", keys.blocked, at, job.id)
      if not job.linked then redis.call("ZADD", keys.opening, at, job.id) end
    end
  end
  add(keys.awaits, awaits)
  add(keys.dependents, dependents)
end
