-- @include lib/state_of
-- @include lib/signal
-- Makes known to jobs that stand already who waits for them now, as the rules `before` name them; of those that have ended
-- word is left at once. The caller has read every key, so that nothing here can fail.
local function adopt(keys, ids, before, now)
  for _, id in ipairs(ids) do
    for _, rule in ipairs(before) do redis.call("ZADD", keys.dependents, 0, id .. " " .. string.sub(rule, #"before:" + 1)) end
    local state, _, ended = state_of(keys, id)
    state = state or ended
    if state == "succeeded" or state == "dead" or state == "cancelled" then
      signal(keys, { id }, state, now, { string.match(redis.call("HGET", keys.results, id) or "", "\n(.*)$") or "" })
    end
  end
end
