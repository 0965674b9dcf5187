-- @include lib/edit_payload
-- @include lib/announce
-- @include lib/leave_line
-- @include lib/to_ready
-- @include lib/tally
-- The write phase of update. The caller has read every key, so that nothing here can fail.
local function revise(keys, changes, place, now)
  local function size(id) return redis.call("HSTRLEN", keys.jobs, id) + redis.call("HSTRLEN", keys.bodies, id) end
  local ids, runnable, soonest, grown = {}, false, nil, 0
  for i, change in ipairs(changes) do
    ids[i] = change.id
    grown = grown - size(change.id)
    if keys.laned and change.from == "ready" then leave_line(keys, change.id, change.record) end
    if change.payload ~= "" then
      edit_payload(keys, change, now)
    else
      redis.call("HSET", keys.jobs, change.id, change.record)
    end
    grown = grown + size(change.id)
    if change.from ~= change.to then redis.call("ZREM", keys[change.from], change.id) end
    local score = string.format("%.0f", change.score)
    if change.to == "ready" then
      to_ready(keys, { { id = change.id, score = score, record = string.match(change.record, "^[^\n]*") } })
    else
      redis.call("ZADD", keys[change.to], score, change.id)
    end
    runnable = runnable or change.to == "ready"
    if change.due then soonest = math.min(soonest or change.due, change.due) end
  end
  if #ids == 0 then return end
  redis.call("HSET", keys.counters, "place", string.format("%.0f", place))
  tally(keys.counters, { bytes_unfinished = grown })
  announce(keys, "update", "", now, { ids = ids, runnable = runnable, due = soonest })
end
