-- reclaim: running -> ready | retrying | dead | cancelled
--
-- The watchdog. A job whose lease ran out is taken from its silent worker: a crash, which uses the attempt and
-- makes the job ready at once, or dead when its crashes or attempts are used up; a lease that ended at the
-- job's own timeout is a failure of kind TimeoutError. After a gap between sweeps (server frozen, restarted,
-- failed over, clock stepped) nothing is reclaimed for a third of a lease and 1 s, so that live workers can
-- extend first. Any process may sweep, any number of times; with `period_ms` a sweep sooner than that is none.
--
-- Returns how many were reclaimed, 1 when more are left, in how many ms to come back, and 1 when leases and
-- running differ in number (then verify both).
-- @flags allow-oom
-- @include lib/failed
-- @include lib/finish
-- @include lib/int
local jobs, ready, retrying, running, cancelled, dead, leases, attempts, results, known, expiries, notes, logs, types, config, counters, bell, events = unpack(KEYS)
local now, worker, seed, limit, lease_ms, period_ms, only_if_due = unpack(ARGV)

local level, created = unpack(redis.call("HMGET", config, "level", "created"))
if (tonumber(level) or 1) > 1 then return redis.error_reply("LEVEL " .. level) end
local keys = { jobs = jobs, ready = ready, retrying = retrying, running = running, cancelled = cancelled, dead = dead,
  leases = leases, attempts = attempts, results = results, known = known, expiries = expiries, notes = notes, logs = logs,
  types = types, config = config, counters = counters, bell = bell, events = events }
now = begin(keys, now)
limit, lease_ms, period_ms = tonumber(limit) or 100, tonumber(lease_ms) or 30000, tonumber(period_ms) or 10000
if limit < 1 or limit > 500 then return redis.error_reply("BATCH limit is 1..500") end
if not created then return { 0, 0, period_ms, 0 } end

local swept_at, grace_until = unpack(redis.call("HMGET", counters, "swept_at", "grace_until"))
swept_at = tonumber(swept_at)
local pause = math.floor(lease_ms / 3) + 1000
if only_if_due == "1" and swept_at and swept_at <= now and now - swept_at < period_ms * 0.9 then
  return { 0, 0, int(swept_at + period_ms - now), 0 }
end
grace_until = math.min(tonumber(grace_until) or 0, now + pause)
local busy = redis.call("ZCARD", running)
if busy > 0 and (not swept_at or swept_at > now or now - swept_at > 1.5 * period_ms) then grace_until = now + pause end
local uneven = redis.call("HLEN", leases) ~= busy and 1 or 0

math.randomseed(tonumber(seed) or now % 2147483647)
local moves, lost, overdue = {}, {}, {}
if now >= grace_until then overdue = redis.call("ZRANGEBYSCORE", running, "-inf", int(now), "LIMIT", 0, limit) end
for _, id in ipairs(overdue) do
  local lease = lease_of(redis.call("HGET", leases, id))
  if redis.call("HEXISTS", jobs, id) == 0 then
    lost[#lost + 1] = id
  else
    if not lease then
      local attempt = course_of(redis.call("HGET", attempts, id)).attempt
      lease = { token = "0", worker = "", started = "", ends = math.huge, score = int(now * 1000), attempt = attempt,
        flags = "", bytes = 0, asked = false }
    end
    local failure = { verb = "reclaim", kind = "LeaseExpired", message = "the lease of " .. lease.worker .. " ran out", trace = "", retry_in = "" }
    if now >= lease.ends then
      failure.kind, failure.message = "TimeoutError", "still running at its timeout"
    else
      failure.crash = true
    end
    moves[#moves + 1] = failed(keys, id, lease, failure, now)
  end
end

if #lost > 0 then
  redis.call("ZREM", running, unpack(lost))
  redis.call("HDEL", leases, unpack(lost))
end
finish(keys, "reclaim", worker, moves, now)
redis.call("HSET", counters, "swept_at", int(now), "grace_until", int(grace_until))
local wait = grace_until > now and math.min(grace_until - now, period_ms) or period_ms
return { #moves + #lost, #overdue == limit and 1 or 0, int(wait), uneven }
