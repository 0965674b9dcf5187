-- Adds to counters. The caller has read `counters`, so that nothing here can fail.
local function tally(counters, added)
  local names, values = {}, {}
  for name in pairs(added) do names[#names + 1] = name end
  local before = redis.call("HMGET", counters, unpack(names))
  for i, name in ipairs(names) do
    values[#values + 1] = name
    values[#values + 1] = string.format("%.0f", math.max(0, (tonumber(before[i]) or 0) + added[name]))
  end
  redis.call("HSET", counters, unpack(values))
end
