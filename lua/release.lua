-- release: running -> ready | scheduled | dead | cancelled
--
-- Gives jobs back unfinished: the attempt is not used and the place in line is kept; with a delay the job
-- is scheduled. `why` is "" (shutdown), snooze (counted), or no_handler: then the delay is the script's,
-- growing from 1 s to 60 s, and the job is dead by no_handler when nobody has taken it for
-- `no_handler_after_ms`. A job that was asked to stop is cancelled.
--
-- Returns for each job the state it is in now (again, when this token's release is repeated), "stale" when
-- the token does not own the job any more, or "missing" when the id is not known.
-- @flags allow-oom
-- @include lib/refusal
-- @include lib/failed
-- @include lib/settled
-- @include lib/finish
local jobs, bodies, ready, scheduled, running, cancelled, dead, dead_index, dead_groups, leases, attempts, results, known, expiries, notes, logs, dependents, awaits, parents, signals, opening, types, lanes, heads, turns, parked, lines, waits, slots, config, counters, bell, events = unpack(KEYS)
local now, worker, no_handler_after_ms, count = unpack(ARGV) -- then `count` times: id, token, delay_ms, why

local refused = refusal(redis.call("HGET", config, "level"), count, 4, 4)
if refused then return refused end
local keys = { jobs = jobs, bodies = bodies,
  ready = ready, scheduled = scheduled, running = running, cancelled = cancelled, dead = dead,
  dead_index = dead_index, dead_groups = dead_groups, leases = leases, attempts = attempts, results = results,
  known = known, expiries = expiries, notes = notes, logs = logs, types = types, config = config, counters = counters,
  bell = bell, events = events,
  lanes = lanes, heads = heads, turns = turns, parked = parked, lines = lines, waits = waits, slots = slots,
  dependents = dependents, awaits = awaits, parents = parents, signals = signals, opening = opening }
now = begin(keys, now)
local patience = tonumber(no_handler_after_ms) or 600000

local reply, moves, done = {}, {}, {}
for i = 1, tonumber(count) do
  local id, token, delay_ms, why = item(4, 4, i)
  local delay = delay_ms == "" and 0 or tonumber(delay_ms)
  if not (delay and delay >= 0 and delay <= 315576000000) then return redis.error_reply("INVALID delay_ms of item " .. i) end
  if why ~= "" and why ~= "snooze" and why ~= "no_handler" then return redis.error_reply("INVALID why of item " .. i) end
  local lease = not done[id] and lease_of(redis.call("HGET", leases, id))
  if not lease or lease.token ~= token then
    reply[i] = settled(keys, id, token, "release")
  else
    done[id] = true
    local course = course_of(redis.call("HGET", attempts, id))
    local since = course.unhandled > 0 and course.since or now
    local move
    if why == "no_handler" and now - since >= patience and not lease.asked then
      local kind = string.match(redis.call("HGET", jobs, id) or "", "^([^|\n]*)|") or ""
      local message = "no worker has a handler for " .. kind
      local failure = { verb = "release", kind = "NoHandler", message = message, trace = "", retry_in = "" }
      failure.reason = "no_handler"
      move = failed(keys, id, lease, failure, now)
    else
      local state = lease.asked and "cancelled" or "ready"
      if why == "no_handler" then
        delay = math.min(60000, 1000 * 2 ^ math.min(course.unhandled, 6))
        course.unhandled, course.since = course.unhandled + 1, since
      else
        course.unhandled, course.since = 0, 0
      end
      if why == "snooze" then course.snoozes = course.snoozes + 1 end
      move = { id = id, score = lease.score, token = token, flags = lease.flags, bytes = lease.bytes }
      if state == "ready" and delay > 0 then
        state, move.due = "scheduled", now + math.ceil(delay)
        move.score = move.due * 1000
      end
      -- A run that was asked to stop is used: the job does not run again.
      course.attempt, course.crashes = lease.asked and lease.attempt or lease.attempt - 1, 0
      course.token, course.verb, course.to = token, "release", state
      course.started, course.worker, course.reason = lease.started, lease.worker, lease.asked or ""
      move.state, move.course = state, course_text(course)
    end
    moves[#moves + 1] = move
    reply[i] = move.state
  end
end
finish(keys, "release", worker, moves, now)
return reply
