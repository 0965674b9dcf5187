-- @include lib/lapses
-- @include lib/signal
-- Ends jobs that waited until their time was over: those that never started are cancelled by `expired`, the others are
-- dead by `deadline`. Each has id, flags, bytes and history (its course), and is out of its old set already; what of
-- retention this calls for is left to the next sweep. Answers the ids of the dead. The caller has read every key, so that
-- nothing here can fail.
local function lapse(keys, list, now)
  -- @include lib/regroup
  -- @include lib/add_error
  -- @include lib/ended_score
  -- @include lib/tally
  -- @include lib/report
  local ids, added = { cancelled = {}, dead = {} }, {}
  for _, job in ipairs(list) do
    local course, state = course_of(job.history), "cancelled"
    course.reason, course.alike = "expired", ""
    if course.attempt > 0 then
      state, course.reason = "dead", "deadline"
      local message = "its deadline passed before it could run again"
      add_error(course, course.attempt, "DeadlineExceeded", message, "", now, "dead: deadline")
    end
    local score, expiry = ended_score(job.flags, now)
    redis.call("HSET", keys.attempts, job.id, course_text(course))
    redis.call("ZADD", keys[state], string.format("%.0f", score), job.id)
    if state == "dead" then regroup(keys, job.id) end
    if expiry then
      redis.call("ZADD", keys.expiries, string.format("%.0f", expiry), job.id)
    else
      redis.call("ZREM", keys.expiries, job.id)
      added["bytes_" .. state] = (added["bytes_" .. state] or 0) + job.bytes
    end
    added[state] = (added[state] or 0) + 1
    added.bytes_unfinished = (added.bytes_unfinished or 0) - job.bytes
    table.insert(ids[state], job.id)
  end
  tally(keys.counters, added)
  signal(keys, ids.cancelled, "cancelled", now)
  signal(keys, ids.dead, "dead", now)
  report(keys.events, "cancel", "", now, ids.cancelled)
  report(keys.events, "bury", "", now, ids.dead)
  return ids.dead
end
