-- A score, a number or its text, as 17 characters that sort as the scores do, for members that are read in lexicographic order.
local function rank_text(score)
  if string.find(score, "^%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d$") then return "1" .. score end
  score = tonumber(score)
  if score >= 0 then return string.format("1%016.0f", score) end
  return string.format("0%016.0f", 9007199254740991 + score)
end
