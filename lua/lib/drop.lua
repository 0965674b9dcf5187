-- @include lib/tally
-- @include lib/free_key
-- @include lib/ungroup
-- @include lib/signal
-- @include lib/forsake
-- Removes jobs of one state, not of running ones, with all that is kept of them. One that ended less than 60 s ago
-- stays known by a tombstone (unless `forget`), so that a repeated enqueue or settlement is recognised; one that holds a
-- unique key for a time, as long as it does.
-- The caller has read every key here, so that nothing can fail.
local function drop(keys, state, ids, now, forget)
  if #ids == 0 then return end
  local ended = redis.call("ZMSCORE", keys[state], unpack(ids))
  local tombs, times, fields, bytes = {}, {}, {}, 0
  local waits = state ~= "succeeded" and state ~= "cancelled" and state ~= "dead"
  local large = redis.call("HLEN", keys.bodies) > 0
  local keyed = redis.call("HLEN", keys.known) > 0
  for i, id in ipairs(ids) do
    local score = tonumber(ended[i]) or 0
    local at = math.abs(score)
    -- What the queue's retention does not decide is not in its count of bytes.
    if score >= 0 or waits then
      bytes = bytes + redis.call("HSTRLEN", keys.jobs, id) + redis.call("HSTRLEN", keys.results, id)
      if large then bytes = bytes + redis.call("HSTRLEN", keys.bodies, id)
        + redis.call("HSTRLEN", keys.bodies, id .. ":result") end
    end
    local head = keyed and string.match(redis.call("HGET", keys.jobs, id) or "", "^[^\n]*\n[^\n]*")
    local till = keyed and math.max(at + 60000, free_key(keys.known, id, head, now, forget)) or at + 60000
    if not forget and till > now then
      local run = redis.call("HGET", keys.results, id) or redis.call("HGET", keys.attempts, id) or ""
      head = head or string.match(redis.call("HGET", keys.jobs, id) or "", "^[^\n]*\n[^\n]*") or ""
      tombs[#tombs + 1] = id
      tombs[#tombs + 1] = string.format("%.0f|%s|%s\n%s", at, state, string.match(run, "^[^\n]*"), head)
      times[#times + 1] = string.format("%.0f", till)
      times[#times + 1] = id
    end
    for _, field in ipairs({ "progress", "checkpoint", "edits" }) do fields[#fields + 1] = id .. ":" .. field end
  end
  if state == "dead" then ungroup(keys, ids) end
  redis.call("ZREM", keys[state], unpack(ids))
  redis.call("HDEL", keys.jobs, unpack(ids))
  redis.call("HDEL", keys.results, unpack(ids))
  if large then
    redis.call("HDEL", keys.bodies, unpack(ids))
    for _, id in ipairs(ids) do redis.call("HDEL", keys.bodies, id .. ":result") end
  end
  redis.call("HDEL", keys.attempts, unpack(ids))
  redis.call("ZREM", keys.expiries, unpack(ids))
  if redis.call("HLEN", keys.notes) > 0 then redis.call("HDEL", keys.notes, unpack(fields)) end
  if redis.call("ZCARD", keys.logs) > 0 then
    for _, id in ipairs(ids) do redis.call("ZREMRANGEBYLEX", keys.logs, "[" .. id .. ":", "(" .. id .. ";") end
  end
  if redis.call("ZCARD", keys.awaits) + redis.call("ZCARD", keys.dependents) > 0 then
    if waits then signal(keys, ids, "cancelled", now) end
    for _, id in ipairs(ids) do forsake(keys, id, now) end
  end
  if #tombs > 0 then
    redis.call("HSET", keys.known, unpack(tombs))
    redis.call("ZADD", keys.expiries, unpack(times))
  end
  tally(keys.counters, { [waits and "bytes_unfinished" or "bytes_" .. state] = -bytes })
end
