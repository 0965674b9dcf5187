-- Rings the queue's bell, which holds one ring, when a job is runnable now or becomes due (ms) before
-- the timekeeper wakes. The caller has read `counters`, and into `keys.rung` how many rings the bell holds.
local function ring(keys, now, runnable, due)
  if keys.rung > 0 then return end
  if not runnable then
    if not due or due > now + 6000 then return end
    local keeper_at = tonumber(redis.call("HGET", keys.counters, "keeper_at"))
    if keeper_at and keeper_at > now - 500 and keeper_at <= due then return end
  end
  redis.call("RPUSH", keys.bell, string.format("%.0f", now))
end
