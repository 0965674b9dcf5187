-- @include lib/drop
-- @include lib/report
-- Drops the oldest ended jobs of one state beyond its retention, at most `limit`, and answers how many.
-- `keep` is what `config` holds: age (ms), count, bytes; false means the default.
local function trim(keys, state, keep, now, limit)
  local cutoff = now - (tonumber(keep[1]) or (state == "dead" and 2592000000 or 86400000))
  local most = tonumber(keep[2]) or (state ~= "dead" and 100000 or nil)
  local over = most and redis.call("ZCOUNT", keys[state], 0, "+inf") - most or 0
  local heavy = 0
  if keep[3] then heavy = (tonumber(redis.call("HGET", keys.counters, "bytes_" .. state)) or 0) - tonumber(keep[3]) end
  local oldest = redis.call("ZRANGEBYSCORE", keys[state], 0, "+inf", "WITHSCORES", "LIMIT", 0, 1)
  if not oldest[1] or over <= 0 and heavy <= 0 and tonumber(oldest[2]) > cutoff then return 0 end
  local page = redis.call("ZRANGEBYSCORE", keys[state], 0, "+inf", "WITHSCORES", "LIMIT", 0, limit)
  local gone = {}
  for i = 1, #page, 2 do
    if #gone >= over and heavy <= 0 and tonumber(page[i + 1]) > cutoff then break end
    gone[#gone + 1] = page[i]
    if heavy > 0 then
      heavy = heavy - redis.call("HSTRLEN", keys.jobs, page[i]) - redis.call("HSTRLEN", keys.results, page[i])
    end
  end
  drop(keys, state, gone, now)
  if state == "dead" then tally(keys.counters, { trimmed_dead = #gone }) end
  report(keys.events, "purge", "", now, gone)
  return #gone
end
