-- obliterate: a whole queue -> gone
--
-- Every job, its history, the queue's configuration: nothing is left, also of what ended less than 60 s ago. Refused
-- while a job runs, unless `force` is 1: settlements that come later find nothing. Tokens begin again with the server's
-- clock, which has gone on.
--
-- Returns "gone", "running" when a job runs, or "missing" when there is no such queue.
-- @flags allow-oom
local jobs, bodies, ready, scheduled, retrying, blocked, running, succeeded, cancelled, dead, dead_index, dead_groups, leases, attempts, results, known, expiries, receipts, notes, logs, dependents, awaits, parents, signals, opening, flows, types, operations, lanes, heads, turns, parked, lines, waits, slots, meters, groups, schedules, fires, owners, names, config, counters, bell, events = unpack(KEYS)
local force = unpack(ARGV)

local level, created = unpack(redis.call("HMGET", config, "level", "created"))
if (tonumber(level) or 1) > 1 then return redis.error_reply("LEVEL " .. level) end
if not created then return { "missing" } end
if force ~= "1" and redis.call("ZCARD", running) > 0 then return { "running" } end
redis.call("UNLINK", jobs, bodies, ready, scheduled, retrying, blocked, running, succeeded, cancelled, dead,
  dead_index, dead_groups, leases, attempts, results, known, expiries, receipts, notes, logs, dependents, awaits,
  parents, signals, opening, flows, types, operations, lanes, heads, turns, parked, lines, waits, slots, meters,
  groups, schedules, fires, owners, names, config, counters, bell, events)
return { "gone" }
