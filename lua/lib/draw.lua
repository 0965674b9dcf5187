-- @include lib/full_record
-- @include lib/weight_of
-- @include lib/laned
-- The next jobs of a queue that has lanes, `only` of some types ("": of all): their ids and scores, and what `gone` names stands
-- in a lane but not in `ready`. The caller takes out of `ready` as many as it wants, from the first on, and calls `take` then
-- with their number and those that are void; it answers whether more may run now, when the next limit frees (ms), and the
-- turn now, a field of `counters` (nil: as it is). `probe` answers the mark of a type's runs where its breaker is half open.
-- The caller has read every key (lib/laned).
local function draw(keys, now, micros, count, only, in_lanes, filed, counted)
  redis.call("HDEL", keys.counters, "") -- a server that knows no flags lets ZADD and HSET through after it
  if keys.limited and in_lanes ~= "2" then
    -- @include lib/by_limits
    by_limits(keys)
    filed, counted = false, false
  end
  if filed == "all" and (counted == "all" or not keys.counting) then
    filed, counted = true, true
  else
    -- @include lib/catch_up
    filed, counted = catch_up(keys)
  end
  local picked
  if keys.limited then
    -- @include lib/draw_by_limits
    picked = draw_by_limits(keys, now, micros, count, only, filed, counted)
  else
    -- @include lib/in_turn
    local plan = in_turn(keys, count)
    picked = { ids = plan.ids, scores = plan.scores }
    function picked.take(upto)
      local more, turn = plan.take(upto)
      return not filed or more, math.huge, turn
    end
  end
  picked.gone = {}
  -- Every job of a lane is ready: only where the numbers differ it is asked of each.
  if #picked.ids > 0 and redis.call("ZCARD", keys.lanes) ~= redis.call("ZCARD", keys.ready) then
    for i, score in ipairs(redis.call("ZMSCORE", keys.ready, unpack(picked.ids))) do
      if not score then picked.gone[picked.ids[i]] = true end
    end
  end
  return picked
end
