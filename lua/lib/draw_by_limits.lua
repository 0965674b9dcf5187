-- The next jobs of a queue that has limits (lib/draw), once it is known who is `filed` and who runs is `counted`.
local function draw_by_limits(keys, now, micros, count, only, filed, counted)
  -- @include lib/scopes_of
  -- @include lib/look_again
  -- @include lib/choose
  -- @include lib/choose_only
  -- @include lib/take
  local scopes = scopes_of(keys, now, micros)
  local plan, types, waiting = { ids = {}, scores = {}, groups = {} }, {}, false
  if not counted then
    waiting = true
  elseif scopes.room(scopes.queue()) > 0 then
    types, waiting = look_again(keys, scopes, now, count)
    plan = only == "" and choose(keys, scopes, count) or choose_only(keys, scopes, count, only)
  end
  local drawn = { ids = plan.ids, scores = plan.scores }
  function drawn.probe(type) return scopes.type(type).probe end
  function drawn.take(upto, void)
    local turn = take(keys, scopes, plan, upto, void, types)
    local queue = scopes.queue()
    if scopes.room(queue) == 0 then return false, scopes.again(queue), turn end
    local next = tonumber(redis.call("ZRANGE", keys.waits, 0, 0, "WITHSCORES")[2] or nil) or math.huge
    return not filed or waiting or upto < #plan.ids or plan.more or next <= now, next, turn
  end
  return drawn
end
