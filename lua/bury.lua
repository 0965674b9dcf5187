-- bury: running -> dead | cancelled
--
-- The move to the dead-letter queue: attempts that say themselves that they must not be tried again.
-- `reason` is permanent (the default), no_handler, bad_payload or corrupt.
--
-- Returns for each job "dead", or "cancelled" where it was asked to stop (again, when this token's bury is
-- repeated), "stale" when the token does not own the job any more, or "missing" when the id is not known.
-- @flags allow-oom
-- @include lib/refusal
-- @include lib/failed
-- @include lib/settled
-- @include lib/finish
local jobs, bodies, running, cancelled, dead, dead_index, dead_groups, leases, attempts, results, known, expiries, notes, logs, dependents, awaits, parents, signals, opening, types, waits, slots, config, counters, bell, events = unpack(KEYS)
local now, worker, count = unpack(ARGV) -- then `count` times: id, token, kind, message, trace, reason

local refused = refusal(redis.call("HGET", config, "level"), count, 3, 6)
if refused then return refused end
local keys = { jobs = jobs, bodies = bodies,
  running = running, cancelled = cancelled, dead = dead, dead_index = dead_index,
  dead_groups = dead_groups, leases = leases, attempts = attempts, results = results, known = known,
  expiries = expiries, notes = notes, logs = logs, types = types, config = config, counters = counters, bell = bell,
  events = events, waits = waits, slots = slots,
  dependents = dependents, awaits = awaits, parents = parents, signals = signals, opening = opening }
now = begin(keys, now)
local reasons = { [""] = "permanent" }
for _, reason in ipairs({ "permanent", "no_handler", "bad_payload", "corrupt" }) do reasons[reason] = reason end

local reply, moves, done = {}, {}, {}
for i = 1, tonumber(count) do
  local id, token, kind, message, trace, reason = item(3, 6, i)
  if not reasons[reason] then return redis.error_reply("INVALID reason of item " .. i) end
  local lease = not done[id] and lease_of(redis.call("HGET", leases, id))
  if lease and lease.token == token then
    done[id] = true
    local failure = { verb = "bury", kind = kind, message = message, trace = trace, retry_in = "", reason = reasons[reason] }
    moves[#moves + 1] = failed(keys, id, lease, failure, now)
    reply[i] = moves[#moves].state
  else
    reply[i] = settled(keys, id, token, "bury")
  end
end
finish(keys, "bury", worker, moves, now)
return reply
