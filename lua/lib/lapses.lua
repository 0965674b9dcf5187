-- When the time of a job that waits is over (ms): at its deadline, and before its first start at the earlier of deadline and
-- expiry; nil for one that has all the time. `flags` are its record's, `attempt` counts the runs that it did not give back.
local function lapses(flags, attempt)
  local deadline, expiry = tonumber(string.match(flags, " d:(%d+)")), tonumber(string.match(flags, " x:(%d+)"))
  if attempt > 0 or not expiry then return deadline end
  return math.min(deadline or expiry, expiry)
end
