-- @include lib/to_ready
-- @include lib/free_slots
-- @include lib/lapses
-- Takes jobs out of running, writes down their runs, and puts the unfinished ones where they wait; `moves` are
-- what `failed` makes. Answers the ended ones by state, and whether a limit has
-- room now for what waits for it. The caller has read every key, so that nothing can fail.
local function settle(keys, moves, now)
  local ids, courses, ready, waiting, ended = {}, {}, {}, { scheduled = {}, retrying = {} }, { dead = {}, cancelled = {} }
  for i, move in ipairs(moves) do
    ids[i] = move.id
    courses[#courses + 1] = move.id
    courses[#courses + 1] = move.course
    local set = waiting[move.state]
    local over = move.flags ~= "" and not ended[move.state] and lapses(move.flags, tonumber(string.match(move.course, "^(%d+)|")))
    if over then redis.call("ZADD", keys.expiries, string.format("%.0f", over), move.id) end
    if move.state == "ready" then
      local record = keys.laned and redis.call("HGET", keys.jobs, move.id)
      local score = type(move.score) == "number" and string.format("%.0f", move.score) or move.score
      ready[#ready + 1] = { id = move.id, score = score, record = record and string.match(record, "^[^\n]*") }
    elseif set then
      set[#set + 1] = type(move.score) == "number" and string.format("%.0f", move.score) or move.score
      set[#set + 1] = move.id
    else
      table.insert(ended[move.state], move)
    end
  end
  redis.call("ZREM", keys.running, unpack(ids))
  redis.call("HDEL", keys.leases, unpack(ids))
  for state, set in pairs(waiting) do if #set > 0 then redis.call("ZADD", keys[state], unpack(set)) end end
  to_ready(keys, ready)
  redis.call("HSET", keys.attempts, unpack(courses))
  return ended, free_slots(keys, moves, now)
end
