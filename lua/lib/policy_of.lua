-- The retry policy in force, field by field: the job's own, the type's as set, as declared, the defaults.
-- Times are milliseconds. `header` is JSON; `set` and `declared` are records of `types`.
local function policy_of(header, set, declared)
  local policy = { max_attempts = 5, immediate = 1, base = 2000, factor = 2, max_delay = 3600000, jitter = 0.5,
    max_crashes = 3, non_retryable = {} }
  local function apply(json)
    if not string.find(json, '"retry"', 1, true) then return end
    local good, value = pcall(cjson.decode, json)
    if not good or type(value) ~= "table" or type(value.retry) ~= "table" then return end
    for name, default in pairs(policy) do
      if type(value.retry[name]) == type(default) then policy[name] = value.retry[name] end
    end
  end
  apply(string.match(declared or "", "\n(.*)$") or "")
  apply(string.match(set or "", "\n(.*)$") or "")
  apply(header)
  return policy
end
