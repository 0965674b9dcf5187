-- The states whose sets an id stands in.
local function standing(keys, id)
  local sets = {}
  for _, state in ipairs({ "ready", "scheduled", "retrying", "blocked", "running", "succeeded", "cancelled", "dead" }) do
    if redis.call("ZSCORE", keys[state], id) then sets[#sets + 1] = state end
  end
  return sets
end
