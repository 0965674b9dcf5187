-- @include lib/conflict
-- Changes standing jobs as new requests of their unique keys have it. The caller has read every key, which lib/conflict
-- did that found them.
local function supersede(keys, changes, place, now)
  -- @include lib/revise
  revise(keys, changes, place, now)
  keys.rung = redis.call("LLEN", keys.bell)
end
