-- Answers a function that writes whole numbers in all their digits, as lib/int does, of numbers that follow one another: to
-- print a double costs more than most of what is done for a job, so its last six digits are printed as a small number.
local function digits()
  local last, text, high, prefix = nil, nil, nil, nil
  return function(number)
    if number == last then return text end
    local above = math.floor(number / 1000000)
    if not last or above < 1 or number % 1 ~= 0 then
      last, text = number, string.format("%.0f", number)
      return text
    end
    if above ~= high then high, prefix = above, string.format("%.0f", above) end
    last, text = number, prefix .. string.format("%06d", number - above * 1000000)
    return text
  end
end
