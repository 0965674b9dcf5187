-- @include lib/int
-- Moves along what was stored before the server's clock went back, so that nothing stands still until the old time has come
-- again: leases (the latest 500), the backoff of retrying jobs, and limits that are to be looked at again. A page a sweep;
-- `back` of the counters has what is left: how far the clock went back (ms), and the score (us) up to which retrying jobs are
-- done. What was stored since the step is moved too: a lease has the grace, a retry comes sooner.
-- Returns the write phase, and whether more is left. The caller has read every key.
local function step_back(keys, now, swept_at, step)
  local by, upto = string.match(step or "", "^(%d+)|(%d+)$")
  by, upto = tonumber(by), tonumber(upto)
  local leases, backoffs, limits = {}, {}, {}
  if swept_at and swept_at > now then
    by, upto = swept_at - now, now * 1000
    local latest = redis.call("ZREVRANGEBYSCORE", keys.running, "+inf", "(" .. int(now), "WITHSCORES", "LIMIT", 0, 500)
    for i = 1, #latest, 2 do
      leases[i], leases[i + 1] = int(tonumber(latest[i + 1]) - by), latest[i]
    end
  elseif not by then
    return function() end, false
  end
  local waiting = redis.call("ZRANGEBYSCORE", keys.retrying, "(" .. int(upto), "+inf", "WITHSCORES", "LIMIT", 0, 500)
  local last = tonumber(waiting[#waiting])
  local whole = #waiting < 1000 or tonumber(waiting[2]) == last
  for i = 1, #waiting, 2 do
    local score = tonumber(waiting[i + 1])
    -- Of a full page those of its last score are left to the next, which begins after a score.
    if whole or score < last then
      backoffs[i], backoffs[i + 1], upto = int(score - by * 1000), waiting[i], score
    end
  end
  if keys.limited then
    local page = redis.call("ZRANGEBYSCORE", keys.waits, "(" .. int(now), "(9007199254740991", "LIMIT", 0, 500)
    for i, name in ipairs(page) do limits[2 * i - 1], limits[2 * i] = int(now), name end
  end
  local more = #waiting == 1000 or #limits == 1000
  return function()
    if #leases > 0 then redis.call("ZADD", keys.running, "XX", unpack(leases)) end
    if #backoffs > 0 then redis.call("ZADD", keys.retrying, "XX", unpack(backoffs)) end
    if #limits > 0 then redis.call("ZADD", keys.waits, "XX", unpack(limits)) end
    if more then
      redis.call("HSET", keys.counters, "back", int(by) .. "|" .. int(upto))
    elseif step then
      redis.call("HDEL", keys.counters, "back")
    end
  end, more
end
