-- How many jobs at the front of a group's line have their turns booked at most, where groups take turns and there are no limits:
-- one read of the line serves as many claims of it, and each is one more member of `turns`.
local function lookahead()
  return 8
end
