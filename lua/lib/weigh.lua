-- Adds up the records of the unfinished jobs, a page of a set a call: what `bytes_unfinished` has to be. Answers the next
-- cursor ("0" at the end), how many were looked at, and then what is wrong, as a sentence, or nil. Where jobs move meanwhile
-- there is nothing to compare: it ends without a finding. The caller has read every key.
local function weigh(keys, cursor, limit, repair)
  local sets = { "ready", "scheduled", "retrying", "blocked", "running" }
  local nth, from, sum, seen = string.match(cursor, "^(%d+)|(%d+)|(%d+)|(.*)$")
  local newest = redis.call("XREVRANGE", keys.events, "+", "-", "COUNT", 1)[1]
  newest = newest and newest[1] or ""
  nth, from, sum, seen = tonumber(nth) or 1, tonumber(from) or 0, tonumber(sum) or 0, seen or newest
  if seen ~= newest then return "0", 0, nil end
  local set = sets[nth] or "running"
  local page = redis.call("ZRANGE", keys[set], from, from + limit - 1)
  for _, id in ipairs(page) do sum = sum + redis.call("HSTRLEN", keys.jobs, id) + redis.call("HSTRLEN", keys.bodies, id) end
  from = from + #page
  if #page < limit then nth, from = nth + 1, 0 end
  if nth <= #sets then return string.format("%d|%d|%.0f|%s", nth, from, sum, seen), #page, nil end
  local counted = tonumber(redis.call("HGET", keys.counters, "bytes_unfinished") or nil) or 0
  if counted == sum then return "0", #page, nil end
  if repair then redis.call("HSET", keys.counters, "bytes_unfinished", string.format("%.0f", sum)) end
  return "0", #page, string.format("is %.0f where the records of unfinished jobs have %.0f bytes", counted, sum)
end
