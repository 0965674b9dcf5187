-- Where groups take turns and there are no limits: how many jobs are before one that stands in its line, and how many groups
-- are before its own. Known where its turn is booked; else every group is taken to run one job between two of its own.
local function place_in_turn(keys, whose, job)
  local first = redis.call("ZRANGEBYLEX", keys.lanes, "[" .. whose .. " ", "(" .. whose .. "!", "LIMIT", 0, 1)[1]
  local own = redis.call("ZSCORE", keys.turns, first) and first or whose .. " +"
  local turn, tag = redis.call("ZRANK", keys.turns, own), redis.call("ZSCORE", keys.turns, own)
  local booked = redis.call("ZRANK", keys.turns, job)
  if not turn or booked then return booked or 0, turn or 0 end
  local ahead = redis.call("ZLEXCOUNT", keys.lanes, "[" .. whose .. " ", "(" .. job)
  local groups = redis.call("ZCOUNT", keys.turns, tag, "(" .. string.format("%.17g", tonumber(tag) + 1))
  return math.min(redis.call("ZCARD", keys.ready) - 1, ahead * groups + turn), turn
end
