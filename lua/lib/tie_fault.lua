-- What is wrong with one member of the structures by which jobs wait for others, as a sentence, or nil; with `repair` it goes.
-- The caller has read every key.
local function tie_fault(keys, structure, member, repair)
  local id, other = string.match(member, "^(%S+) ?[?+-]?(.*)$")
  local flow = string.match(id, "^=(.*)$")
  local there = (flow and redis.call("HEXISTS", keys.flows, flow) or redis.call("HEXISTS", keys.jobs, id)) == 1
  local function strike() if repair then redis.call("ZREM", keys[structure], member) end end
  if redis.call("ZSCORE", keys.expiries, "~" .. id) then return nil end

  if structure == "awaits" then
    if there then return nil end
    strike()
    if repair then redis.call("HDEL", keys.parents, id, id .. " " .. other) end
    return "waits for others but is not there"
  elseif structure == "parents" then
    if there then return nil end
    if repair then redis.call("HDEL", keys.parents, member) end
    return "was told of others but is not there"
  elseif structure == "dependents" then
    if there or redis.call("ZSCORE", keys.signals, id) then return nil end
    strike()
    return "is waited for but is not there"
  elseif structure == "signals" then
    if redis.call("HEXISTS", keys.notes, id .. ":signal") == 1 then return nil end
    strike()
    return "has word for others that says nothing"
  elseif structure == "opening" then
    local state = flow and string.match(redis.call("HGET", keys.flows, flow) or "", "^%a+")
    if state == "building" or state == "undone" then return nil end
    if not flow and redis.call("ZSCORE", keys.blocked, id) then return nil end
    strike()
    return "is to be made known but does not wait"
  end
  return nil
end
