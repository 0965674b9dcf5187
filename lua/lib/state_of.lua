-- The state an id stands in and its score there; or nil, nil, and the state it ended in when it is gone but
-- still known. A few reads: not for hot paths.
local function state_of(keys, id)
  for _, state in ipairs({ "ready", "running", "scheduled", "retrying", "succeeded", "dead", "cancelled", "blocked" }) do
    local score = redis.call("ZSCORE", keys[state], id)
    if score then return state, tonumber(score) end
  end
  return nil, nil, string.match(redis.call("HGET", keys.known, id) or "", "^%d+|(%a+)|")
end
