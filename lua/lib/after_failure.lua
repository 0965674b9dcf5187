-- Where a failed attempt leads: a state, the time it is due (retrying) in ms, the reason (dead).
-- The caller has seeded the generator. The k-th backoff waits d * (1 - jitter * r), d = min(max_delay, base * factor^k).
local function after_failure(policy, attempt, kind, retry_in, now)
  for _, refused in ipairs(policy.non_retryable) do
    if refused == kind then return "dead", nil, "permanent" end
  end
  if attempt >= policy.max_attempts then return "dead", nil, "attempts" end
  local delay
  if retry_in ~= "" then
    delay = tonumber(retry_in)
  elseif attempt <= policy.immediate then
    delay = 0
  else
    local grown = policy.base > 0 and policy.base * policy.factor ^ (attempt - policy.immediate - 1) or 0
    local longest = math.min(policy.max_delay, grown)
    delay = math.ceil(longest * (1 - policy.jitter * math.random()))
  end
  if delay <= 0 then return "ready", nil, "" end
  return "retrying", now + delay, ""
end
