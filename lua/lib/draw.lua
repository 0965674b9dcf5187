-- @include lib/laned
-- The next jobs of a queue that has lanes, `only` of some types ("": of all): their ids and scores, and what `gone` names stands
-- in a lane but not in `ready`. The caller takes out of `ready` as many as it wants, from the first on, and calls `take` then
-- with their number and those that are void; it answers whether more may run now, and when the next limit frees (ms). The
-- caller has read every key (lib/laned).
local function draw(keys, now, micros, count, only)
  -- @include lib/catch_up
  -- @include lib/scopes_of
  -- @include lib/look_again
  -- @include lib/choose
  -- @include lib/choose_of
  -- @include lib/take
  redis.call("HDEL", keys.counters, "") -- a server that knows no flags lets ZADD and HSET through after it
  if redis.call("HSETNX", keys.config, "lanes", "1") == 1 then redis.call("HDEL", keys.counters, "filed", "counted") end
  local filed, counted = catch_up(keys)
  local scopes = scopes_of(keys, now, micros)
  local plan, types, waiting = { picks = {}, groups = {} }, {}, false
  if not counted then
    waiting = true
  elseif scopes.room(scopes.queue()) > 0 then
    types, waiting = look_again(keys, scopes, now, count)
    plan = only == "" and choose(keys, scopes, count) or choose_of(keys, scopes, count, only)
  end
  local drawn = { ids = {}, scores = {}, gone = {} }
  for i, pick in ipairs(plan.picks) do drawn.ids[i], drawn.scores[i] = pick.id, pick.score end
  for i, score in ipairs(#drawn.ids > 0 and redis.call("ZMSCORE", keys.ready, unpack(drawn.ids)) or {}) do
    if not score then drawn.gone[drawn.ids[i]] = true end
  end
  function drawn.take(upto, void)
    take(keys, scopes, plan, upto, void, types)
    local queue = scopes.queue()
    if scopes.room(queue) == 0 then return false, scopes.again(queue) end
    local next = tonumber(redis.call("ZRANGE", keys.waits, 0, 0, "WITHSCORES")[2] or nil) or math.huge
    return not filed or waiting or upto < #plan.picks or plan.more or next <= now, next
  end
  return drawn
end
