-- Whether the jobs of this queue wait in lanes: the config's `lanes` is 1 where groups take turns and 2 where there are limits;
-- `slots` says that who runs is counted, and `breakers` that how runs end is. Reads every key of the lanes then, so that nothing
-- can fail after the first write.
local function laned(keys, flag, counting, breakers)
  if not flag then return false end
  keys.laned, keys.limited, keys.counting = true, flag == "2", counting and true or false
  for _, name in ipairs({ "lanes", "heads", "turns" }) do
    if keys[name] then keys[name .. "_size"] = redis.call("ZCARD", keys[name]) end
  end
  if not keys.limited then return true end
  keys.breakers = breakers
  for _, name in ipairs({ "parked", "lines", "waits", "slots" }) do
    if keys[name] then redis.call("ZCARD", keys[name]) end
  end
  for _, name in ipairs({ "meters", "groups", breakers and "types" }) do
    if keys[name] then keys[name .. "_size"] = redis.call("HLEN", keys[name]) end
  end
  return true
end
