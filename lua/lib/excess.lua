-- How far an ended state will be beyond its retention when `more` jobs of `weight` bytes have entered it: too many,
-- too heavy, and the time (ms) up to which it is too old; nil when it keeps it. `keep` is what `config` holds: age
-- (ms), count, bytes; false means the default. Reads only.
local function excess(keys, state, keep, now, more, weight)
  local cutoff = now - (tonumber(keep[1]) or (state == "dead" and 2592000000 or 86400000))
  local most = tonumber(keep[2]) or (state ~= "dead" and 100000 or nil)
  local over = most and redis.call("ZCOUNT", keys[state], 0, "+inf") + more - most or 0
  local heavy = 0
  if keep[3] then
    heavy = (tonumber(redis.call("HGET", keys.counters, "bytes_" .. state)) or 0) + weight - tonumber(keep[3])
  end
  local oldest = redis.call("ZRANGEBYSCORE", keys[state], 0, "+inf", "WITHSCORES", "LIMIT", 0, 1)
  if over <= 0 and heavy <= 0 and not (oldest[1] and tonumber(oldest[2]) <= cutoff) then return nil end
  return { over = over, heavy = heavy, cutoff = cutoff }
end
