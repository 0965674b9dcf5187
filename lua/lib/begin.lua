-- @include lib/clock
-- @include lib/laned
-- Reads the time and every key that a transition may write, so that nothing can fail after the first write.
local function begin(keys, now)
  local sorted = { "ready", "scheduled", "retrying", "blocked", "running", "succeeded", "cancelled", "dead", "expiries", "logs",
    "dead_index", "dead_groups", "dependents", "awaits", "signals", "opening" }
  for _, name in ipairs(sorted) do
    if keys[name] then redis.call("ZCARD", keys[name]) end
  end
  local hashes = { "jobs", "bodies", "leases", "attempts", "results", "known", "notes", "types",
    "config", "counters", "operations",
    "parents", "flows" }
  for _, name in ipairs(hashes) do
    if keys[name] then redis.call("HLEN", keys[name]) end
  end
  keys.rung = redis.call("LLEN", keys.bell)
  redis.call("XLEN", keys.events)
  if keys.lanes or keys.slots then laned(keys, unpack(redis.call("HMGET", keys.config, "lanes", "slots", "breakers"))) end
  return (clock(now))
end
