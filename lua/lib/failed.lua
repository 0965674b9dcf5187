-- @include lib/lease_of
-- @include lib/course_of
-- @include lib/course_text
-- @include lib/add_error
-- @include lib/policy_of
-- @include lib/after_failure
-- @include lib/fingerprint
-- The move of one job whose attempt failed, as its policy says. The caller holds the lease and has seeded
-- the generator. `failure` has kind, message, trace, retry_in; with `reason` the job is dead by it, and with
-- `crash` it is a run-out lease, ready at once until its attempts or its crashes are used up (`shared`: its worker held
-- others). No attempt can follow one that
-- failed at the job's deadline, or whose backoff would last beyond it: dead by `deadline`.
local function failed(keys, id, lease, failure, now)
  local record = redis.call("HGET", keys.jobs, id) or ""
  local kind, header = string.match(record, "^([^|\n]*)|[^\n]*\n([^\n]*)\n")
  local set, declared = unpack(redis.call("HMGET", keys.types, kind or "", ":" .. (kind or "")))
  local policy = policy_of(header or "", set, declared)
  local course = course_of(redis.call("HGET", keys.attempts, id))
  local verb = failure.verb or "nack"
  course.attempt, course.token, course.verb = lease.attempt, lease.token, verb
  course.started, course.worker, course.reason = lease.started, lease.worker, ""
  course.unhandled, course.since = 0, 0
  course.crashes = failure.crash and course.crashes + 1 or 0
  -- Which of several jobs ended their worker is not known: it counts, but it is the last of none.
  if failure.shared then course.crashes = math.min(course.crashes, math.max(1, policy.max_crashes - 1)) end

  local deadline = tonumber(string.match(lease.flags, " d:(%d+)"))
  local state, due, reason
  if lease.asked then
    state, reason = "cancelled", lease.asked
  elseif failure.reason then
    state, reason = "dead", failure.reason
  elseif deadline and deadline <= now then
    state, reason = "dead", "deadline"
  elseif failure.crash then
    state, reason = "ready", ""
    if course.crashes >= policy.max_crashes and not failure.shared then
      state, reason = "dead", "crashes"
    elseif course.attempt >= policy.max_attempts then
      state, reason = "dead", "attempts"
    end
  else
    state, due, reason = after_failure(policy, course.attempt, failure.kind, failure.retry_in, now)
    if due and deadline and due >= deadline then state, due, reason = "dead", nil, "deadline" end
  end

  local next = state == "ready" and "retry at once" or state == "dead" and "dead: " .. reason or "cancelled"
  if state == "retrying" then next = string.format("retry in %.1f s", (due - now) / 1000) end
  add_error(course, course.attempt, failure.kind, failure.message, failure.trace, now, next)
  course.to, course.reason = state, reason
  course.alike = state == "dead" and fingerprint(kind or "", failure.kind, failure.message) or ""
  local move = { id = id, state = state, score = lease.score, token = lease.token, flags = lease.flags, bytes = lease.bytes,
    fingerprint = course.alike }
  -- What says that the job itself is wrong says nothing of what its type depends on: no breaker counts it.
  if state ~= "cancelled" and not failure.reason and reason ~= "permanent" then move.good = false end
  if state == "retrying" then move.score, move.due = due * 1000, due end
  move.course = course_text(course)
  return move
end
