-- explain: read only, what holds some jobs now, or what became of them
--
-- Looks at the state as it is in this call: pauses, limits without room and who holds their slots, turns, the place in line.
-- A place is exact in a plain queue. With lanes it is about right: every group is taken to serve one job a turn, and of
-- the job's own group no more than twenty types are looked at.
--
-- Returns the time in ms, then for each id: its state ("" when it is not known), how many are before it in line ("" where
-- it is in none), 1 when that is exact, its type, the number of reasons, and each as `code|until|more`, until in ms or "".
-- More is of retry_wait the runs so far; of no_handler how often it was given back; of running worker, attempt, 1 when it
-- was asked to stop; of ended the reason; of a limit or pause its scope (q, t<type>, g<group>), of concurrency_limited
-- besides how many run, how many may, and up to ten of them, `id worker` with commas between; of group_turn how many
-- groups are before.
-- @flags no-writes
-- @include lib/clock
-- @include lib/refusal
-- @include lib/state_of
-- @include lib/laned
-- @include lib/holds
local jobs, ready, scheduled, retrying, blocked, running, succeeded, cancelled, dead, known, leases, attempts, types, lanes, heads, turns, parked, lines, slots, meters, groups, config = unpack(KEYS)
local now, count = unpack(ARGV) -- then `count` times: id

local refused = refusal(1, count, 2, 1)
if refused then return refused end
local keys = { jobs = jobs, ready = ready, scheduled = scheduled, retrying = retrying, blocked = blocked,
  running = running, succeeded = succeeded, cancelled = cancelled, dead = dead, known = known, leases = leases, types = types,
  lanes = lanes, heads = heads, turns = turns, parked = parked, lines = lines, slots = slots, meters = meters,
  groups = groups, config = config }
laned(keys, unpack(redis.call("HMGET", config, "lanes", "slots")))
local micros
now, micros = clock(now)

local reply = { string.format("%.0f", now) }
for i = 1, tonumber(count) do
  local id = item(2, 1, i)
  local state, score, ended = state_of(keys, id)
  local tomb = not state and redis.call("HGET", known, id) or ""
  local course = redis.call("HGET", attempts, id) or string.match(tomb, "^%d+|%a+|([^\n]*)") or ""
  local runs, reason, unhandled = string.match(course, "^(%d+)|%d+|%d+|%d+|[^|]*|[^|]*|[^|]*|[^|]*|([^|]*)|(%d+)|")
  local first, found, before, exact = nil, {}, nil, true
  local due = score and string.format("%.0f", math.floor(score / 1000))
  if state == "scheduled" then
    first = (tonumber(unhandled) or 0) > 0 and "no_handler|" .. due .. "|" .. unhandled or "scheduled|" .. due .. "|"
  elseif state == "retrying" then
    first = "retry_wait|" .. due .. "|" .. (runs or "0")
  elseif state == "blocked" then
    first = "blocked_by||"
  elseif state == "running" then
    local lease = redis.call("HGET", leases, id) or ""
    local worker, attempt, asked = string.match(lease, "^%d+|([^|]*)|%d+|%d+|[^|]*|(%d+)|[^|]*|[^|]*|([^|]*)|")
    first = string.format("running|%.0f|%s|%s|%s", score, worker or "", attempt or "", (asked or "0") ~= "0" and "1" or "")
  elseif state ~= "ready" and (state or ended) then
    local at = score and string.format("%.0f", math.abs(score)) or string.match(tomb, "^%d+")
    first = "ended|" .. at .. "|" .. (state ~= "succeeded" and ended ~= "succeeded" and reason or "")
  end
  if state == "ready" or state == "scheduled" or state == "retrying" or state == "blocked" then
    found, before, exact = holds(keys, id, state == "ready" and score, now, micros)
  end
  if first then table.insert(found, 1, first) end
  local n = #reply
  reply[n + 1], reply[n + 2] = state or ended or "", before and string.format("%.0f", before) or ""
  reply[n + 3] = exact and 1 or 0
  reply[n + 4] = string.match(redis.call("HGET", jobs, id) or "", "^([^|\n]*)|") or ""
  reply[n + 5] = #found
  for j, one in ipairs(found) do reply[n + 5 + j] = one end
end
return reply
