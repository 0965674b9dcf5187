-- The answer to a settlement that does not own its job: the state it led to when it is a repeat of the
-- one that ended this token's run, "missing" for an id that is not known, else "stale".
local function settled(keys, id, token, verb)
  local function led_to(text)
    local last, by, to = string.match(text or "", "^%d+|%d+|%d+|(%d+)|(%a*)|(%a*)|")
    return last == token and by == verb and to or nil
  end
  if redis.call("HEXISTS", keys.leases, id) == 1 then return "stale" end
  local run = redis.call("HGET", keys.results, id)
  local tomb = redis.call("HGET", keys.known, id)
  local to = led_to(run or redis.call("HGET", keys.attempts, id)) or led_to(string.match(tomb or "", "^%d+|%a+|(.*)$"))
  if to then return to end
  return (tomb or redis.call("HEXISTS", keys.jobs, id) == 1) and "stale" or "missing"
end
