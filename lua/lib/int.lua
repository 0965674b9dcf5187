-- A whole number in all its digits: Lua's own text stops at 14.
local function int(number)
  return string.format("%.0f", number)
end
