-- @include lib/item
-- An error reply when this call may not go on, else nil: a queue of a newer level, or a batch that
-- is not 1..500 items of `width` fields after the `fixed` arguments. With a `limit` the call may name no
-- items at all: then it is about a page of at most so many ("": the script's own number).
local function refusal(level, count, fixed, width, limit)
  if (tonumber(level) or 1) > 1 then return redis.error_reply("LEVEL " .. level) end
  local items = tonumber(count)
  local page = limit and (count == "" or items == 0)
  local most = page and (limit == "" and 1 or tonumber(limit)) or items
  if not most or most < 1 or most > 500 or most % 1 ~= 0 then
    return redis.error_reply("BATCH " .. (page and "limit" or "count") .. " is 1..500")
  end
  if #ARGV ~= fixed + (page and 0 or items * width) then
    return redis.error_reply("BATCH count does not match the arguments")
  end
  return nil
end
