-- The time of this call: milliseconds and microseconds. Tests send it; everybody else sends "".
local function clock(sent)
  if sent ~= "" then return tonumber(sent), tonumber(sent) * 1000 end
  local time = redis.call("TIME")
  local micros = time[1] * 1000000 + time[2]
  return math.floor(micros / 1000), micros
end
