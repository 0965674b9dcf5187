-- @include lib/ungroup
-- @include lib/edit_payload
-- @include lib/course_of
-- @include lib/course_text
-- @include lib/tally
-- @include lib/to_ready
-- @include lib/announce
-- The write phase of replay: dead jobs become ready, placed now. Each has id, bytes, head (its record's
-- first line), rank and payload ("": as it is), with one also crc and edits; its record where that is needed or has changed;
-- `deadline` where it has one still. The caller has read every key, so that nothing here can fail.
local function revive(keys, jobs, step, now, micros)
  local place = tonumber(redis.call("HGET", keys.counters, "place")) or 0
  local ids, list, bytes, gross = {}, {}, 0, 0
  for i, job in ipairs(jobs) do ids[i] = job.id end
  ungroup(keys, ids)
  for i, job in ipairs(jobs) do
    if tonumber(redis.call("ZSCORE", keys.dead, job.id)) >= 0 then bytes = bytes + job.bytes end
    redis.call("ZREM", keys.dead, job.id)
    redis.call("ZREM", keys.expiries, job.id)
    if job.payload ~= "" then
      edit_payload(keys, job, now)
    elseif job.record then
      redis.call("HSET", keys.jobs, job.id, job.record)
    end
    if job.deadline then redis.call("ZADD", keys.expiries, job.deadline, job.id) end
    local course = course_of(redis.call("HGET", keys.attempts, job.id))
    course.attempt, course.crashes, course.unhandled, course.since, course.reason, course.alike = 0, 0, 0, 0, "", ""
    redis.call("HSET", keys.attempts, job.id, course_text(course))
    gross = gross + redis.call("HSTRLEN", keys.jobs, job.id) + redis.call("HSTRLEN", keys.bodies, job.id)
    place = math.max(place + 1, micros)
    list[i] = { id = job.id, score = string.format("%.0f", place - job.rank * step), record = job.head }
  end
  to_ready(keys, list)
  redis.call("HSET", keys.counters, "place", string.format("%.0f", place))
  tally(keys.counters, { replay = #jobs, bytes_dead = -bytes, bytes_unfinished = gross })
  announce(keys, "replay", "", now, { ids = ids, runnable = true })
end
