-- enqueue: (new) -> ready | scheduled | blocked
--
-- Takes in new jobs. An id that stands already, or ended less than 60 s ago, is not taken again: it is
-- the same job when its fingerprint is the same (without one: its type and payload), else a conflict.
-- A job that is due later than now waits in scheduled; ties of one millisecond keep their order. Where the queue has a
-- `max_length` and as many jobs stand in ready and scheduled, no more are taken in; nor where it has `max_bytes` and the records
-- of the unfinished jobs would be more than that (one that is larger alone is taken into an empty queue). A queue that is
-- `draining` has no room for any new job.
-- `rules` is what else decides when the job runs, "" for nothing: `group:<name>`, `cost:<1..1000>`, `deadline:<ms>` and
-- `expires:<ms>`, the time or with a `+`
-- how long from now, with a space between. A time that has passed already is refused, and nothing is stored.
-- With the rule `unique:<key>` there is one such job at a time: from its enqueueing to its end, or with `until:start` to
-- its start, or with `for:<ms>` alone for so long; with both, at most so long. `conflict:` says what happens to one that
-- waits: `return` and `reject` leave it (the caller is told), `replace` makes it what this request asks for, its time too
-- (one that is `retrying` waits on unless a time is given), `debounce` the same but that without a time it keeps its own.
-- One that was enqueued or changed by this same call is left.
-- The rule `call:<letters and digits>` names the call: a job that a former try of the same call has made is answered "again".
-- With rules `after:<queue>:<key>` a job waits in blocked for the end of others; `failure:` says what happens when one of them
-- does not succeed (lua/resolve.lua). They must then be told that it waits (lua/follow.lua); what both are told of as they
-- come in has `before:<queue>:<key>` on the one and `linked:1` on the other, which must come in first.
--
-- Returns 1 when the queue is new (register it), the time in ms, then for each job its outcome ("ready", "scheduled",
-- "blocked", "exists", "again", "conflict", "full", "past", or of a unique one "held" or "changed") and when it is due in ms
-- ("" unless scheduled), of a unique one the id that stands.
-- Refuses with INVALID what no caller may send: an id, a type, a number out of its range.
-- @flags
-- @include lib/clock
-- @include lib/refusal
-- @include lib/take_in
local jobs, bodies, ready, scheduled, retrying, blocked, running, succeeded, cancelled, dead, attempts, known, expiries, notes, dependents, awaits, opening, counters, lanes, heads, turns, parked, lines, config, events, bell = unpack(KEYS)
local now, count = unpack(ARGV) -- then `count` times: id, type, payload, priority, delay_ms, run_at_ms, timeout_ms, retention_ms, rules, fingerprint, crc, header

local refused = refusal(redis.call("HGET", config, "level"), count, 2, 12)
if refused then return refused end
local micros
now, micros = clock(now)
local keys = { jobs = jobs, bodies = bodies,
  ready = ready, scheduled = scheduled, retrying = retrying, blocked = blocked, running = running,
  succeeded = succeeded, cancelled = cancelled, dead = dead, attempts = attempts, known = known, expiries = expiries,
  notes = notes, dependents = dependents, awaits = awaits, opening = opening, counters = counters, lanes = lanes,
  heads = heads, turns = turns, parked = parked, lines = lines, config = config, events = events, bell = bell }
local reply, write = take_in(keys, now, micros, tonumber(count), function(i) return item(2, 12, i) end)
if write then write() end
return reply
