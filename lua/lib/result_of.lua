-- The result of a job that succeeded as others are given it: "" for none and for one of more than 64 KiB. A large one stands in
-- `bodies` (lib/apart).
local function result_of(keys, id)
  local result, field = string.match(redis.call("HGET", keys.results, id) or "", "\n(.*)$"), id .. ":result"
  if result ~= "" then return result or "" end
  return redis.call("HSTRLEN", keys.bodies, field) <= 65536 and redis.call("HGET", keys.bodies, field) or ""
end
