-- inspect: read only, all that is kept of some jobs
--
-- `with` names what to bring besides: "payload", "result" (both: "payload result").
--
-- Returns the time in ms, then for each id: its state ("" when it is not known), its score there, its record
-- (two lines without the payload), the record of its former runs, of its last run, its lease, its progress,
-- its edits, its tombstone, and the policies of its type as set and as declared; "" for what there is not.
-- @flags no-writes
-- @include lib/clock
-- @include lib/refusal
-- @include lib/state_of
-- @include lib/full_record
local jobs, bodies, ready, scheduled, retrying, blocked, running, succeeded, cancelled, dead, leases, attempts, results, known, notes, types = unpack(KEYS)
local now, with, count = unpack(ARGV) -- then `count` times: id

local refused = refusal(1, count, 3, 1)
if refused then return refused end
local keys = { jobs = jobs, bodies = bodies, ready = ready, scheduled = scheduled, retrying = retrying, blocked = blocked,
  running = running, succeeded = succeeded, cancelled = cancelled, dead = dead, known = known }
local payload, result = string.find(with, "payload", 1, true), string.find(with, "result", 1, true)
if payload or result then redis.call("HLEN", bodies) end
local reply = { string.format("%.0f", clock(now)) }
for i = 1, tonumber(count) do
  local id = item(3, 1, i)
  local state, score = state_of(keys, id)
  local record, run = redis.call("HGET", jobs, id) or "", redis.call("HGET", results, id) or ""
  if payload then record = full_record(keys, id, record) end
  if result then run = full_record(keys, id .. ":result", run) end
  if not payload then record = string.match(record, "^[^\n]*\n[^\n]*") or record end
  if not result then run = string.match(run, "^[^\n]*") end
  local edits = payload and redis.call("HGET", notes, id .. ":edits")
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3] = state or "", score and string.format("%.0f", score) or "", record
  reply[n + 4], reply[n + 5] = redis.call("HGET", attempts, id) or "", run
  reply[n + 6], reply[n + 7] = redis.call("HGET", leases, id) or "", redis.call("HGET", notes, id .. ":progress") or ""
  local tomb = redis.call("HGET", known, id) or ""
  local kind = string.match(record, "^([^|\n]*)|") or string.match(tomb, "^[^\n]*\n([^|\n]*)|") or ""
  local set, declared = unpack(redis.call("HMGET", types, kind, ":" .. kind))
  reply[n + 8], reply[n + 9], reply[n + 10], reply[n + 11] = edits or "", tomb, set or "", declared or ""
end
return reply
