-- The fields of the i-th item of the call: `width` for each, after the `fixed` arguments.
local function item(fixed, width, i)
  local at = fixed + (i - 1) * width
  return unpack(ARGV, at + 1, at + width)
end
