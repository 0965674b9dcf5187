-- nack: running -> ready | retrying | dead | cancelled
--
-- The attempts failed. Each job goes back at once, waits for its backoff, or becomes a dead letter, as its
-- retry policy says; where it was asked to stop, it is cancelled. `retry_in_ms` overrules the delay; with a
-- `scope` (type or group) no other run of the job's type or group starts for that long either.
--
-- Returns for each job the state it is in now (again, when this token's nack is repeated), "stale" when the
-- token does not own the job any more, or "missing" when the id is not known.
-- @flags allow-oom
-- @include lib/refusal
-- @include lib/failed
-- @include lib/settled
-- @include lib/finish
-- @include lib/slow
local jobs, bodies, ready, retrying, running, cancelled, dead, dead_index, dead_groups, leases, attempts, results, known, expiries, notes, logs, dependents, awaits, parents, signals, opening, types, lanes, heads, turns, parked, lines, waits, slots, meters, config, counters, bell, events = unpack(KEYS)
local now, worker, seed, count = unpack(ARGV) -- then `count` times: id, token, kind, message, trace, retry_in_ms, scope

local refused = refusal(redis.call("HGET", config, "level"), count, 4, 7)
if refused then return refused end
local keys = { jobs = jobs, bodies = bodies,
  ready = ready, retrying = retrying, running = running, cancelled = cancelled, dead = dead,
  dead_index = dead_index, dead_groups = dead_groups, leases = leases, attempts = attempts, results = results,
  known = known, expiries = expiries, notes = notes, logs = logs, types = types, config = config, counters = counters,
  bell = bell, events = events,
  lanes = lanes, heads = heads, turns = turns, parked = parked, lines = lines, waits = waits, slots = slots, meters = meters,
  dependents = dependents, awaits = awaits, parents = parents, signals = signals, opening = opening }
now = begin(keys, now)
math.randomseed(tonumber(seed) or now % 2147483647)

local reply, moves, slowed, done = {}, {}, {}, {}
for i = 1, tonumber(count) do
  local id, token, kind, message, trace, retry_in, scope = item(4, 7, i)
  local wait = retry_in == "" and 0 or tonumber(retry_in)
  if not (wait and wait >= 0 and wait <= 604800000) then return redis.error_reply("INVALID retry_in_ms of item " .. i) end
  if scope ~= "" and (scope ~= "type" and scope ~= "group" or retry_in == "") then
    return redis.error_reply("INVALID scope of item " .. i)
  end
  local lease = not done[id] and lease_of(redis.call("HGET", leases, id))
  if lease and lease.token == token then
    done[id] = true
    local move = failed(keys, id, lease, { kind = kind, message = message, trace = trace, retry_in = retry_in }, now)
    move.token = token
    moves[#moves + 1] = move
    if scope ~= "" then slowed[#slowed + 1] = { id = id, scope = scope, wait = wait } end
    reply[i] = move.state
  else
    reply[i] = settled(keys, id, token, "nack")
  end
end
if #slowed > 0 then
  redis.call("HLEN", meters)
  slow(keys, slowed, now)
end
finish(keys, "nack", worker, moves, now)
return reply
