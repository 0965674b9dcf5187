-- @include lib/standings
-- Whether a blocked job waits for nothing that could still let it go.
local function idle_wait(keys, id)
  local pending, _, failed = standings(keys, id)
  local policy = string.match(redis.call("HGET", keys.jobs, id) or "", "^[^|\n]*|[^|\n]*|[^|\n]* a:(%a+)")
  return pending == 0 and not (policy == "wait" and failed > 0)
end
