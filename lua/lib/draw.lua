-- @include lib/laned
-- The next jobs of a queue that has lanes, `only` of some types ("": of all): their ids and scores, and what `gone` names stands
-- in a lane but not in `ready`. The caller takes out of `ready` as many as it wants, from the first on, and calls `take` then
-- with their number and those that are void; it answers whether more may run now, when the next limit frees (ms), and the
-- turn now, a field of `counters` (nil: as it is). `probe` answers the mark of a type's runs where its breaker is half open.
-- The caller has read every key (lib/laned).
local function draw(keys, now, micros, count, only, in_lanes, filed, counted)
  -- @include lib/catch_up
  -- @include lib/scopes_of
  -- @include lib/look_again
  -- @include lib/choose
  -- @include lib/choose_only
  -- @include lib/take
  redis.call("HDEL", keys.counters, "") -- a server that knows no flags lets ZADD and HSET through after it
  if not in_lanes then
    redis.call("HSET", keys.config, "lanes", "2")
    redis.call("HDEL", keys.counters, "filed", "counted")
  end
  if in_lanes and filed == "all" and (counted == "all" or not keys.counting) then
    filed, counted = true, true
  else
    filed, counted = catch_up(keys)
  end
  local scopes = scopes_of(keys, now, micros)
  local plan, types, waiting = { ids = {}, scores = {}, groups = {} }, {}, false
  if not counted then
    waiting = true
  elseif scopes.room(scopes.queue()) > 0 then
    if keys.limited then types, waiting = look_again(keys, scopes, now, count) end
    plan = only == "" and choose(keys, scopes, count) or choose_only(keys, scopes, count, only)
  end
  local drawn = { ids = plan.ids, scores = plan.scores, gone = {} }
  -- Every job of a lane is ready: only where the numbers differ it is asked of each.
  if #plan.ids > 0 and redis.call("ZCARD", keys.lanes) ~= redis.call("ZCARD", keys.ready) then
    for i, score in ipairs(redis.call("ZMSCORE", keys.ready, unpack(plan.ids))) do
      if not score then drawn.gone[plan.ids[i]] = true end
    end
  end
  function drawn.probe(type) return scopes.type(type).probe end
  function drawn.take(upto, void)
    local turn = take(keys, scopes, plan, upto, void, types)
    local queue = scopes.queue()
    if scopes.room(queue) == 0 then return false, scopes.again(queue), turn end
    if not keys.limited then return not filed or upto < #plan.ids or plan.more, math.huge, turn end
    local next = tonumber(redis.call("ZRANGE", keys.waits, 0, 0, "WITHSCORES")[2] or nil) or math.huge
    return not filed or waiting or upto < #plan.ids or plan.more or next <= now, next, turn
  end
  return drawn
end
