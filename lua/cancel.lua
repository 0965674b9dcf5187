-- cancel: scheduled, blocked, ready, retrying -> cancelled; a running one is asked to stop
--
-- A running job keeps its lease with a flag: its worker hears of it with the next heartbeat, and whatever
-- then ends the run but ack leads to cancelled.
-- `reason` is why: "asked" ("" too), or "overlap" where it makes room for the next of its schedule.
-- `operation` is a page of one (lib/next_page): the call is refused unless it is the next, and counted with it.
--
-- Returns for each job "cancelled" (also when it was already), "running" when it was asked, the state that
-- refuses ("succeeded", "dead"), or "missing" when the id is not known.
-- @flags allow-oom
-- @include lib/refusal
-- @include lib/retire
-- @include lib/lease_text
-- @include lib/turn_page
-- @include lib/leave_line
local jobs, bodies, ready, scheduled, retrying, blocked, running, succeeded, cancelled, dead, leases, attempts, results, known, expiries, notes, logs, dependents, awaits, parents, signals, opening, operations, lanes, heads, turns, parked, lines, config, counters, bell, events = unpack(KEYS)
local now, operation, reason, count = unpack(ARGV) -- then `count` times: id

local refused = refusal(redis.call("HGET", config, "level"), count, 4, 1)
if refused then return refused end
if reason == "" then reason = "asked" end
if reason ~= "asked" and reason ~= "overlap" then return redis.error_reply("INVALID reason") end
local keys = { jobs = jobs, bodies = bodies, ready = ready, scheduled = scheduled, retrying = retrying, blocked = blocked,
  running = running, succeeded = succeeded, cancelled = cancelled, dead = dead, leases = leases, attempts = attempts,
  results = results, known = known, expiries = expiries, notes = notes, logs = logs, operations = operations,
  config = config, counters = counters, bell = bell, events = events, lanes = lanes, heads = heads, turns = turns,
  parked = parked, lines = lines,
  dependents = dependents, awaits = awaits, parents = parents, signals = signals, opening = opening }
local page, outrun
now, page, outrun = begin_page(keys, now, operation)
if outrun then return outrun end

local reply, leaving, asked, done = {}, {}, {}, {}
for i = 1, tonumber(count) do
  local id = item(4, 1, i)
  local state, _, ended = state_of(keys, id)
  if done[id] then
    reply[i] = done[id]
  elseif not state then
    reply[i] = ended or "missing"
  elseif state == "running" then
    local lease = lease_of(redis.call("HGET", leases, id))
    if lease and not lease.asked then
      lease.asked, lease.asked_at = reason, string.format("%.0f", now)
      asked[#asked + 1] = id
      asked[#asked + 1] = lease_text(lease)
    end
    reply[i] = "running"
  elseif state == "succeeded" or state == "dead" or state == "cancelled" then
    reply[i] = state
  else
    local record = redis.call("HGET", jobs, id) or ""
    local flags = string.match(record, "^[^|\n]*|[^|\n]*|([^|\n]*)|") or ""
    local course = course_of(redis.call("HGET", attempts, id))
    course.reason = reason
    leaving[#leaving + 1] = { id = id, from = state, flags = flags, bytes = weight_of(keys, id, record),
      course = course_text(course),
      head = string.match(record, "^[^\n]*") }
    reply[i] = "cancelled"
  end
  done[id] = reply[i]
end

local ids = {}
for i, job in ipairs(leaving) do
  ids[i] = job.id
  if keys.laned and job.from == "ready" then leave_line(keys, job.id, job.head) end
  redis.call("ZREM", keys[job.from], job.id)
  if job.from == "blocked" then redis.call("ZREM", opening, job.id) end
  redis.call("HSET", attempts, job.id, job.course)
end
retire(keys, "cancelled", leaving, now)
if #asked > 0 then
  redis.call("HDEL", leases, "") -- a server that knows no flags lets HSET through after it
  redis.call("HSET", leases, unpack(asked))
end
if #ids > 0 then
  tally(counters, { cancel = #ids })
  report(events, "cancel", "", now, ids)
end
turn_page(operations, page, #ids + #asked / 2, now)
return reply
