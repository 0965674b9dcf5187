-- @include lib/adopt
-- Leaves jobs for other queues as words to be relayed: each has its id there (queue:key) and its fields as enqueue takes them.
-- The caller has read every key, so that nothing here can fail.
local function post(keys, jobs, now)
  local order = tonumber(redis.call("HGET", keys.counters, "signal") or nil) or 0
  for _, job in ipairs(jobs) do
    order = math.max(order + 1, now * 1000)
    local parts = {}
    for i, field in ipairs(job.fields) do parts[i] = #field .. ":" .. field end
    -- Another run may have left the same job, for others who wait: its word stands beside this one.
    local at = string.format("%.0f", order)
    local name = "+" .. job.id .. "!" .. at
    redis.call("ZADD", keys.signals, at, name)
    redis.call("HSET", keys.notes, name .. ":signal", at .. "|enqueue||\n" .. table.concat(parts))
  end
  if #jobs == 0 then return end
  redis.call("HSET", keys.counters, "signal", string.format("%.0f", order))
  if redis.call("LLEN", keys.bell) == 0 then redis.call("RPUSH", keys.bell, string.format("%.0f", now)) end
end
