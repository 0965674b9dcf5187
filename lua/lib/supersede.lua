-- Changes standing jobs as new requests of their unique keys have it. The caller has read every key, which lib/conflict
-- did that found them.
local function supersede(keys, changes, place, now)
  -- @include lib/revise
  revise(keys, changes, place, now)
  for _, change in ipairs(changes) do
    -- A deadline that it had and has no longer is found to be none when its time comes.
    if change.over then redis.call("ZADD", keys.expiries, string.format("%.0f", change.over), change.id) end
  end
  keys.rung = redis.call("LLEN", keys.bell)
end
