-- From now on limits may hold jobs of this queue: they wait by type and group, and are filed anew by the claims to come. The
-- caller has read every key.
local function by_limits(keys)
  redis.call("HSET", keys.config, "lanes", "2")
  redis.call("UNLINK", keys.lanes, keys.heads, keys.turns)
  redis.call("HDEL", keys.counters, "filed", "counted")
end
