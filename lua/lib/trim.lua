-- @include lib/drop
-- @include lib/report
-- Drops the oldest jobs of an ended state that is in `excess`, at most `limit`, and answers how many. The caller
-- has read every key, so that nothing here can fail.
local function trim(keys, state, beyond, now, limit)
  local page = redis.call("ZRANGEBYSCORE", keys[state], 0, "+inf", "WITHSCORES", "LIMIT", 0, limit)
  local gone, heavy = {}, beyond.heavy
  for i = 1, #page, 2 do
    if #gone >= beyond.over and heavy <= 0 and tonumber(page[i + 1]) > beyond.cutoff then break end
    gone[#gone + 1] = page[i]
    if heavy > 0 then
      heavy = heavy - redis.call("HSTRLEN", keys.jobs, page[i]) - redis.call("HSTRLEN", keys.results, page[i])
        - redis.call("HSTRLEN", keys.bodies, page[i]) - redis.call("HSTRLEN", keys.bodies, page[i] .. ":result")
    end
  end
  drop(keys, state, gone, now)
  if state == "dead" then tally(keys.counters, { trimmed_dead = #gone }) end
  report(keys.events, "purge", "", now, gone)
  return #gone
end
