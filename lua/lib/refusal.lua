-- @include lib/item
-- An error reply when this call may not go on, else nil: a queue of a newer level, or a batch that
-- is not 1..500 items of `width` fields after the `fixed` arguments (false: not looked at).
local function refusal(level, count, fixed, width)
  if (tonumber(level) or 1) > 1 then return redis.error_reply("LEVEL " .. level) end
  local items = tonumber(count)
  if not items or items < 1 or items > 500 or items % 1 ~= 0 then
    return redis.error_reply("BATCH count is 1..500")
  end
  if fixed and #ARGV ~= fixed + items * width then
    return redis.error_reply("BATCH count does not match the arguments")
  end
  return nil
end
