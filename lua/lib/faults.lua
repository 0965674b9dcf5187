-- @include lib/standing
-- @include lib/grouped
-- @include lib/lane_of
-- @include lib/lane_member
-- @include lib/slots_of
-- @include lib/lapses
-- @include lib/idle_wait
-- What is wrong with one id, as a list of sentences. Whether something keeps its deadline is asked where its record is
-- given: who goes through all records has them.
local function faults(keys, id, text)
  local sets, found = standing(keys, id), {}
  local record, lease = redis.call("HEXISTS", keys.jobs, id) == 1, redis.call("HGET", keys.leases, id)
  local run, tomb = redis.call("HEXISTS", keys.results, id) == 1, redis.call("HEXISTS", keys.known, id) == 1
  if #sets > 1 then found[1] = "stands in " .. table.concat(sets, ", ") end
  if record and #sets == 0 then found[#found + 1] = "stands in no set" end
  if not record and #sets > 0 then found[#found + 1] = "has no record" end
  if not record and #sets == 0 and not tomb then found[#found + 1] = "belongs to no job" end
  if tomb and (record or #sets > 0) then found[#found + 1] = "is known as gone but stands" end
  -- One that was claimed since is buried as corrupt, and stays as it is.
  local bare = text and sets[1] ~= "dead" and string.find(text, "^[^\n]*\n[^\n]*\n$")
  if bare and redis.call("HEXISTS", keys.bodies, id) == 0 then
    found[#found + 1] = "has lost its payload"
  end
  local running = redis.call("ZSCORE", keys.running, id)
  if lease and not running then found[#found + 1] = "has a lease but does not run" end
  if running and not lease then found[#found + 1] = "runs without a lease" end
  if run and not redis.call("ZSCORE", keys.succeeded, id) then found[#found + 1] = "has a result but did not succeed" end
  local dead = grouped(keys, id)
  local listed = dead and redis.call("ZSCORE", keys.dead_groups, string.sub(dead, 1, 16))
  if dead and not (listed and redis.call("ZSCORE", keys.dead_index, dead)) then
    found[#found + 1] = "is dead but in no group of those that died alike"
  end
  local flags = #sets == 1 and string.match(text or "", "^[^|\n]*|[^|\n]*|([^|\n]*)|") or ""
  if string.find(flags, " [dx]:") and string.find(" ready scheduled retrying blocked ", " " .. sets[1] .. " ", 1, true) then
    local attempt = tonumber(string.match(redis.call("HGET", keys.attempts, id) or "", "^(%d+)|")) or 0
    if lapses(flags, attempt) and not redis.call("ZSCORE", keys.expiries, id) then
      found[#found + 1] = "has a deadline that nothing keeps"
    end
  end
  if #sets == 1 and sets[1] == "blocked" and idle_wait(keys, id) then
    found[#found + 1] = "is blocked but waits for nothing"
  end
  if not keys.laned then return found end
  local filed, counted = unpack(redis.call("HMGET", keys.counters, "filed", "counted"))
  local score = tonumber(redis.call("ZSCORE", keys.ready, id) or nil)
  if score and filed == "all" then
    local type, group, cost = lane_of(redis.call("HGET", keys.jobs, id))
    if type ~= "-" and not redis.call("ZSCORE", keys.lanes, lane_member(keys, type, group, score, id, cost)) then
      found[#found + 1] = "is ready but in no lane"
    end
  end
  if running and lease and keys.counting and counted == "all" then
    for _, member in ipairs(slots_of(keys, id, lease, {})) do
      local probe = string.sub(member, 1, 1) == "b"
      if not redis.call("ZSCORE", keys.slots, member) then
        found[#found + 1] = probe and "is a probe that its breaker does not count" or "runs without a slot"
      end
    end
  end
  return found
end
