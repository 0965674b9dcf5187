-- @include lib/lane_of
-- Adds to `members` what stands in `slots` for a running job, one for its type and one for its group (and one for a
-- breaker, where it is a probe), and answers both scopes.
-- `flags` are its lease's; a lease that was given before the queue had lanes does not name the type, then its record does.
local function slot_of(keys, id, flags, members)
  local type, group = string.match(flags, " t:(%S+)"), string.match(flags, " g:(%S+)") or ""
  if not type then type, group = lane_of(redis.call("HGET", keys.jobs, id)) end
  members[#members + 1] = "t" .. type .. " " .. id
  if string.find(flags, " p:", 1, true) then members[#members + 1] = "b" .. type .. " " .. id end
  if group == "" then return "t" .. type end
  members[#members + 1] = "g" .. group .. " " .. id
  return "t" .. type, "g" .. group
end
