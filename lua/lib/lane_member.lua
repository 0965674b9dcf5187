-- @include lib/rank_text
-- What stands in `lanes` for a job: its lane is a range, in it the lowest score comes first. Where there are limits a lane is
-- of one type in one group, for a limit holds the jobs of a type; else it is a group's line.
local function lane_member(keys, type, group, score, id, cost)
  if not keys.limited then return group .. " " .. rank_text(score) .. " " .. id end
  local member = type .. " " .. group .. " " .. rank_text(score) .. " " .. id
  return cost == "" and member or member .. " " .. cost
end
