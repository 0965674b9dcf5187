-- @include lib/state_of
-- @include lib/signal
-- @include lib/result_of
-- Makes known to jobs that stand already who waits for them now, as the rules `before` name them; of those that have ended
-- word is left at once. The caller has read every key, so that nothing here can fail.
local function adopt(keys, ids, before, now)
  for _, id in ipairs(ids) do
    local state, _, ended = state_of(keys, id)
    state = state or ended
    -- A word about a success may stand for those who waited before, and says what that one has added, which concerns them alone:
    -- the one for those who come now stands beside it. Who failed may run again, and is waited for as ever.
    local name = id
    if state == "succeeded" then name = id .. "!" .. (redis.call("HGET", keys.counters, "signal") or "0") end
    for _, rule in ipairs(before) do redis.call("ZADD", keys.dependents, 0, name .. " " .. string.sub(rule, #"before:" + 1)) end
    if state == "succeeded" or state == "dead" or state == "cancelled" then
      signal(keys, { name }, state, now, { result_of(keys, id) })
    end
  end
end
