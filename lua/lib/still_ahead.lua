-- How far a stored time is ahead of now, and whether the clock has gone back since the time was stored (at `stored_at`, ""
-- for unknown). In that case the distance is the one it had then: the caller writes the moved time back, or nothing
-- would come nearer.
local function still_ahead(time, stored_at, now)
  local at = tonumber(stored_at)
  if at and at > now then return tonumber(time) - at, true end
  return tonumber(time) - now, false
end
