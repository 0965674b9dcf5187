-- @include lib/rank_text
-- What stands in `lanes` for a job: its lane is a range, in it the lowest score comes first.
local function lane_member(type, group, score, id, cost)
  local member = type .. " " .. group .. " " .. rank_text(score) .. " " .. id
  return cost == "" and member or member .. " " .. cost
end
