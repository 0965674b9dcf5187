-- @include lib/state_of
-- @include lib/signal
-- Makes known to jobs that stand already who waits for them now, as the rules `before` name them; of those that have ended
-- word is left at once. The caller has read every key, so that nothing here can fail.
local function adopt(keys, queue, ids, before, now)
  local all, seen = { unpack(ids) }, {}
  for _, id in ipairs(ids) do seen[id] = true end
  for _, id in ipairs(all) do
    for _, rule in ipairs(before) do redis.call("ZADD", keys.dependents, 0, id .. " " .. string.sub(rule, #"before:" + 1)) end
    local state, _, ended = state_of(keys, id)
    state = state or ended
    if state == "succeeded" or state == "dead" or state == "cancelled" then
      -- The word that is not told yet says what it has added: that goes on, and whoever waits for it now waits for those too.
      local added = string.match(redis.call("HGET", keys.notes, id .. ":signal") or "", "^%d+|succeeded|[^|\n]*|([^\n]*)") or ""
      signal(keys, { id }, state, now, { string.match(redis.call("HGET", keys.results, id) or "", "\n(.*)$") or "" }, added)
      for one in string.gmatch(added, "%S+") do
        local own = string.sub(one, 1, #queue + 1) == queue .. ":" and string.sub(one, #queue + 2)
        if own and not seen[own] then all[#all + 1], seen[own] = own, true end
      end
    end
  end
end
