-- reclaim: running -> ready | retrying | dead | cancelled
--
-- The watchdog. A job whose lease ran out is taken from its silent worker: a crash, which uses the attempt and
-- makes the job ready at once, or dead when its crashes or attempts are used up (a crash that several jobs of a worker shared
-- ends none by its crashes: the next claim gives each of them alone); a lease that ended at the
-- job's own timeout is a failure of kind TimeoutError, at its deadline one of DeadlineExceeded. After a gap
-- between sweeps (server frozen, restarted, failed over, clock stepped) nothing is reclaimed for a third of a lease
-- and 1 s, so that live workers can extend first. Any process may sweep, any number of times; with `period_ms` a sweep
-- sooner than that is none.
--
-- Returns how many were reclaimed, 1 when more are left, in how many ms to come back, and 1 when leases and
-- running differ in number (then verify both), and 1 when this was a sweep (0: none was due); then for each job that was
-- reclaimed: id, the state that it is in now, the worker whose lease it was.
-- @flags allow-oom
-- @include lib/failed
-- @include lib/finish
-- @include lib/step_back
local jobs, bodies, ready, retrying, running, cancelled, dead, dead_index, dead_groups, leases, attempts, results, known, expiries, notes, logs, dependents, awaits, parents, signals, opening, types, lanes, heads, turns, parked, lines, waits, slots, meters, config, counters, bell, events = unpack(KEYS)
local now, worker, seed, limit, lease_ms, period_ms, only_if_due = unpack(ARGV)

local level, created = unpack(redis.call("HMGET", config, "level", "created"))
if (tonumber(level) or 1) > 1 then return redis.error_reply("LEVEL " .. level) end
local keys = { jobs = jobs, bodies = bodies,
  ready = ready, retrying = retrying, running = running, cancelled = cancelled, dead = dead,
  dead_index = dead_index, dead_groups = dead_groups, leases = leases, attempts = attempts, results = results,
  known = known, expiries = expiries, notes = notes, logs = logs, types = types, config = config, counters = counters,
  bell = bell, events = events,
  lanes = lanes, heads = heads, turns = turns, parked = parked, lines = lines, waits = waits, slots = slots, meters = meters,
  dependents = dependents, awaits = awaits, parents = parents, signals = signals, opening = opening }
now = begin(keys, now)
limit = limit == "" and 100 or tonumber(limit)
lease_ms, period_ms = lease_ms == "" and 30000 or tonumber(lease_ms), period_ms == "" and 10000 or tonumber(period_ms)
if not (limit and limit >= 1 and limit <= 500) then return redis.error_reply("BATCH limit is 1..500") end
if not (lease_ms and lease_ms >= 1 and lease_ms <= 604800000) then return redis.error_reply("INVALID lease_ms") end
if not (period_ms and period_ms >= 1 and period_ms <= 604800000) then return redis.error_reply("INVALID period_ms") end
if not created then return { 0, 0, period_ms, 0, 0 } end

local swept_at, grace_until, step = unpack(redis.call("HMGET", counters, "swept_at", "grace_until", "back"))
swept_at = tonumber(swept_at)
local pause = math.floor(lease_ms / 3) + 1000
if only_if_due == "1" and swept_at and swept_at <= now and now - swept_at < period_ms * 0.9 then
  return { 0, 0, int(swept_at + period_ms - now), 0, 0 }
end
grace_until = math.min(tonumber(grace_until) or 0, now + pause)
local busy, before = redis.call("ZCARD", running), grace_until
if busy > 0 and (not swept_at or swept_at > now or now - swept_at > 1.5 * period_ms) then grace_until = now + pause end
-- What had run out at the last sweep has had its grace: else a sweeper that comes seldom would never reclaim.
local upto = now >= grace_until and now or now >= before and swept_at and swept_at <= now and swept_at
local uneven = redis.call("HLEN", leases) ~= busy and 1 or 0

local move_along, stepped = step_back(keys, now, swept_at, step)

math.randomseed(tonumber(seed) or now % 2147483647)
-- How many jobs each silent worker held: those whose leases ran out, and others whose leases end soonest.
local company = {}
local function held_by(name)
  if not company.known then
    company.known = {}
    local soonest = redis.call("ZRANGE", running, 0, 199)
    for _, text in ipairs(#soonest > 0 and redis.call("HMGET", leases, unpack(soonest)) or {}) do
      local its = text and string.match(text, "^%d+|([^|]*)|")
      if its then company.known[its] = (company.known[its] or 0) + 1 end
    end
  end
  return company.known[name] or 1
end
local moves, workers, lost, slotted, overdue, weight = {}, {}, {}, {}, {}, 0
if upto then overdue = redis.call("ZRANGEBYSCORE", running, "-inf", int(upto), "WITHSCORES", "LIMIT", 0, limit) end
for i = 1, #overdue, 2 do
  local id, until_ms = overdue[i], tonumber(overdue[i + 1])
  local lease = lease_of(redis.call("HGET", leases, id))
  if redis.call("HEXISTS", jobs, id) == 0 then
    lost[#lost + 1] = id
    weight = weight + (lease and lease.bytes or 0)
    slotted[#slotted + 1] = { id = id, flags = lease and lease.flags or "" }
  else
    if not lease then
      local attempt = course_of(redis.call("HGET", attempts, id)).attempt
      -- It may have been a probe, nobody knows of which time: its slot goes with it, and it tells no breaker that is half open.
      lease = { token = "0", worker = "", started = "", ends = math.huge, score = int(now * 1000), attempt = attempt,
        flags = " p:", bytes = redis.call("HSTRLEN", jobs, id) + redis.call("HSTRLEN", bodies, id), asked = false }
    end
    local failure = { verb = "reclaim", kind = "LeaseExpired", trace = "", retry_in = "" }
    failure.message = "the lease of " .. lease.worker .. " ran out"
    if until_ms >= lease.ends then
      failure.kind, failure.message = "TimeoutError", "still running at its timeout"
      if lease.ends == tonumber(string.match(lease.flags, " d:(%d+)")) then
        failure.kind, failure.message = "DeadlineExceeded", "still running at the job's deadline"
      end
    else
      failure.crash, failure.shared = true, held_by(lease.worker) > 1
    end
    moves[#moves + 1] = failed(keys, id, lease, failure, now)
    workers[#moves] = lease.worker
  end
end

move_along()
if #lost > 0 then
  redis.call("ZREM", running, unpack(lost))
  redis.call("HDEL", leases, unpack(lost))
  tally(counters, { bytes_unfinished = -weight })
  if free_slots(keys, slotted, now) then ring(keys, now, true) end
end
finish(keys, "reclaim", worker, moves, now)
redis.call("HDEL", counters, "") -- a server that knows no flags lets HSET through after it
redis.call("HSET", counters, "swept_at", int(now), "grace_until", int(grace_until))
local wait = grace_until > now and math.min(grace_until - now, period_ms) or period_ms
local reply = { #moves + #lost, (stepped or #overdue == 2 * limit) and 1 or 0, int(wait), uneven, 1 }
for i, move in ipairs(moves) do
  reply[3 * i + 3], reply[3 * i + 4], reply[3 * i + 5] = move.id, move.state, workers[i]
end
return reply
