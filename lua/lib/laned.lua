-- Whether the jobs of this queue wait in lanes; `flag` is the config's. Reads every key of the lanes then, so that nothing
-- can fail after the first write.
local function laned(keys, flag)
  if not flag then return false end
  for _, name in ipairs({ "lanes", "heads", "turns", "parked", "lines", "waits", "slots" }) do
    if keys[name] then redis.call("ZCARD", keys[name]) end
  end
  for _, name in ipairs({ "meters", "groups" }) do
    if keys[name] then redis.call("HLEN", keys[name]) end
  end
  keys.laned = true
  return true
end
