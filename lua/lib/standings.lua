-- How many of the jobs that `id` waits for are still to end, succeeded, and ended otherwise.
local function standings(keys, id)
  local found = {}
  for i, sign in ipairs({ "?", "+", "-" }) do
    local start = id .. " " .. sign
    found[i] = redis.call("ZLEXCOUNT", keys.awaits, "[" .. start, "(" .. start .. "~")
  end
  return unpack(found)
end
