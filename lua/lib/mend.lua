-- @include lib/faults
-- @include lib/ungroup
-- @include lib/regroup
-- @include lib/to_ready
-- Puts one id right. The caller has read every key, so that nothing here can fail.
local function mend(keys, id, now)
  local sets = standing(keys, id)
  local record, lease = redis.call("HEXISTS", keys.jobs, id) == 1, redis.call("HGET", keys.leases, id)
  if not record then
    ungroup(keys, { id })
    for _, state in ipairs(sets) do redis.call("ZREM", keys[state], id) end
    for _, name in ipairs({ "leases", "attempts", "results" }) do redis.call("HDEL", keys[name], id) end
    redis.call("HDEL", keys.bodies, id, id .. ":result")
    return "repaired"
  end
  local run = redis.call("HEXISTS", keys.results, id) == 1
  local keep = sets[1]
  if #sets > 1 then
    local has = {}
    for _, state in ipairs(sets) do has[state] = true end
    keep = run and has.succeeded and "succeeded" or lease and has.running and "running" or sets[1]
    if keep ~= "dead" then ungroup(keys, { id }) end
    for _, state in ipairs(sets) do
      if state ~= keep then redis.call("ZREM", keys[state], id) end
    end
  end
  local idle = keep == "blocked" and idle_wait(keys, id)
  if idle then
    redis.call("ZREM", keys.blocked, id)
    redis.call("ZREM", keys.opening, id)
  end
  if not keep or idle then
    keep = "ready"
    redis.call("ZADD", keys.ready, string.format("%.0f", now * 1000), id)
    redis.call("RPUSH", keys.bell, string.format("%.0f", now))
    redis.call("LTRIM", keys.bell, 0, 0)
  end
  if lease and keep ~= "running" then redis.call("HDEL", keys.leases, id) end
  if keep == "running" and not lease then redis.call("ZADD", keys.running, "XX", 0, id) end
  if run and keep ~= "succeeded" then
    redis.call("HDEL", keys.results, id)
    redis.call("HDEL", keys.bodies, id .. ":result")
  end
  if redis.call("HDEL", keys.known, id) == 1 then redis.call("ZREM", keys.expiries, id) end
  if keep == "dead" then regroup(keys, id) end
  if string.find(" ready scheduled retrying blocked ", " " .. keep .. " ", 1, true) then
    local flags = string.match(redis.call("HGET", keys.jobs, id), "^[^|\n]*|[^|\n]*|([^|\n]*)|") or ""
    local over = lapses(flags, tonumber(string.match(redis.call("HGET", keys.attempts, id) or "", "^(%d+)|")) or 0)
    if over then redis.call("ZADD", keys.expiries, string.format("%.0f", over), id) end
  end
  if keys.laned and keep == "ready" then
    local head = string.match(redis.call("HGET", keys.jobs, id) or "", "^[^\n]*")
    to_ready(keys, { { id = id, score = redis.call("ZSCORE", keys.ready, id), record = head } })
  elseif keys.counting and keep == "running" then
    for _, member in ipairs(slots_of(keys, id, lease, {})) do redis.call("ZADD", keys.slots, 0, member) end
  end
  return "repaired"
end
