-- The retry policy in force, field by field: the job's own, the type's as set, as declared, the defaults.
-- Times are milliseconds. `header` is JSON; `set` and `declared` are records of `types`. A value out of its bounds
-- is not taken: what is stored was checked, and what was not must not stop a settlement half-way.
local function policy_of(header, set, declared)
  local policy = { max_attempts = 20, immediate = 1, base = 2000, factor = 2, max_delay = 3600000, jitter = 0.5,
    max_crashes = 3, non_retryable = {} }
  local bounds = { max_attempts = { 1, 1000 }, immediate = { 0, 1000 }, base = { 0, 604800000 }, factor = { 1, 1000 },
    max_delay = { 0, 604800000 }, jitter = { 0, 1 }, max_crashes = { 1, 1000 } }
  local function apply(json)
    if not string.find(json, '"retry"', 1, true) then return end
    local good, value = pcall(cjson.decode, json)
    if not good or type(value) ~= "table" or type(value.retry) ~= "table" then return end
    for name, default in pairs(policy) do
      local said, within = value.retry[name], bounds[name]
      if type(said) == type(default) and (not within or said >= within[1] and said <= within[2]) then policy[name] = said end
    end
  end
  apply(string.match(declared or "", "\n([^\n]*)") or "")
  apply(string.match(set or "", "\n([^\n]*)") or "")
  apply(header)
  return policy
end
