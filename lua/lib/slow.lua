-- @include lib/still_ahead
-- Lets no run of a job's type, or of its group, start for a while, as its handler asked: each of `asked` has id, scope and wait
-- (ms). It becomes a limit of the queue, which needs lanes for that, like any. The caller has read every key.
local function slow(keys, asked, now)
  -- @include lib/lane_of
  local limits = keys.limited
  for _, its in ipairs(asked) do
    local type, group = lane_of(redis.call("HGET", keys.jobs, its.id))
    local field = its.scope == "type" and "hold t" .. type or group ~= "" and "hold g" .. group
    if field and its.wait > 0 then
      local held, set_at = string.match(redis.call("HGET", keys.meters, field) or "", "^(%d+)|?(%d*)$")
      local wait = math.max(still_ahead(held or 0, set_at, now), math.ceil(its.wait))
      redis.call("HSET", keys.meters, field, string.format("%.0f|%.0f", now + wait, now))
      limits = true
    end
  end
  if limits and not keys.limited then
    -- @include lib/by_limits
    by_limits(keys)
    keys.laned = false -- what becomes ready in this call is filed with the rest
  end
end
