-- One field of all items as a list; `field` counts from 1, the rest is as in `item`.
local function column(fixed, width, count, field)
  local list = {}
  for i = 1, count do list[i] = ARGV[fixed + (i - 1) * width + field] end
  return list
end
