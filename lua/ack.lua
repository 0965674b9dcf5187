-- ack: running -> succeeded
--
-- The attempts did their work. Results are stored, the oldest succeeded jobs beyond the queue's retention
-- go (bounded), and a job whose own retention is 0 goes at once; its id stays known for 60 s.
--
-- Returns for each job "succeeded" (again, when this token's ack is repeated), "stale" when the token does
-- not own the job any more, or "missing" when the id is not known.
-- @flags allow-oom
-- @include lib/clock
-- @include lib/refusal
-- @include lib/succeed
local jobs, bodies, running, leases, succeeded, attempts, results, known, expiries, notes, logs, dependents, awaits, parents, signals, opening, types, waits, slots, meters, config, counters, bell, events = unpack(KEYS)
local now, worker, count = unpack(ARGV) -- then `count` times: id, token, result

local refused = refusal(redis.call("HGET", config, "level"), count, 3, 3)
if refused then return refused end
now = clock(now)
local keys = { jobs = jobs, bodies = bodies, running = running, leases = leases, succeeded = succeeded, attempts = attempts,
  results = results, known = known, expiries = expiries, notes = notes, logs = logs, dependents = dependents, awaits = awaits,
  parents = parents, signals = signals, opening = opening, types = types, waits = waits, slots = slots, meters = meters,
  config = config, counters = counters, bell = bell, events = events }
local reply, write = succeed(keys, now, worker, tonumber(count), function(i) return item(3, 3, i) end)
if write then write() end
return reply
