-- resolve: blocked -> ready | scheduled | cancelled, or back from cancelled to blocked
--
-- Jobs that others wait for have ended, or run again (`revived`): each item says so to one that waits. `from` is the job
-- that ended, as queue:key, `order` rises with each word about it, so that one that comes late or twice changes nothing;
-- `state` is succeeded, dead, cancelled or revived, with the result of a success. `added` are jobs (queue:key, with a space
-- between) that the ended one has made, and that are waited for as well.
-- A job runs when all have ended that it waits for; where one of them did not succeed, its record says what then: `cancel`
-- it at once, `continue` all the same, `wait` until that one was replayed and succeeded, or run on `failure` only, and
-- be cancelled when all succeeded. What was cancelled for one that runs again is blocked again.
-- An id that begins with = is a flow, which waits for all its jobs. With the state "joins" an item names one that a blocked
-- job waits for too, and which is about to come in (or to go): it is asked for after a while;
-- with "followed" it says that all of whom its job waits know of it.
--
-- Returns for each item the state in which what waits is now, or "missing".
-- @flags allow-oom
-- @include lib/refusal
-- @include lib/begin
-- @include lib/resolved
local jobs, bodies, ready, scheduled, retrying, blocked, running, succeeded, cancelled, dead, leases, attempts, results, known, expiries, notes, logs, dependents, awaits, parents, signals, opening, flows, lanes, heads, turns, parked, lines, config, counters, bell, events = unpack(KEYS)
local now, count = unpack(ARGV) -- then `count` times: id, from, order, state, result, added

local level, created = unpack(redis.call("HMGET", config, "level", "created"))
local refused = refusal(level, count, 2, 6)
if refused then return refused end
local sent = now
local keys = { jobs = jobs, bodies = bodies, ready = ready, scheduled = scheduled, retrying = retrying, blocked = blocked,
  running = running, succeeded = succeeded, cancelled = cancelled, dead = dead, leases = leases, attempts = attempts,
  results = results, known = known, expiries = expiries, notes = notes, logs = logs, dependents = dependents,
  awaits = awaits, parents = parents, signals = signals, opening = opening, flows = flows, config = config,
  counters = counters, bell = bell, events = events, lanes = lanes, heads = heads, turns = turns, parked = parked,
  lines = lines }
now = begin(keys, now)
local micros = select(2, clock(sent))

local words = {}
for i = 1, tonumber(count) do
  local id, from, order, state, result, added = item(2, 6, i)
  if not string.find(id, "^=?[%w._-]+$") then return redis.error_reply("INVALID id of item " .. i) end
  if state ~= "followed" then
    if not string.find(from, "^%w[%w._~-]*:=?[%w._-]+$") then return redis.error_reply("INVALID from of item " .. i) end
    if not string.find(" succeeded dead cancelled revived joins ", " " .. state .. " ", 1, true) then
      return redis.error_reply("INVALID state of item " .. i)
    end
    local at = tonumber(order)
    if not (at and at >= 0 and at <= 9007199254740991) then return redis.error_reply("INVALID order of item " .. i) end
    if string.find(added, "[^%w._~:= -]") then return redis.error_reply("INVALID added of item " .. i) end
  end
  words[i] = { id = id, from = from, order = order, state = state, result = result, added = added }
end
if not created then
  local reply = {}
  for i = 1, #words do reply[i] = "missing" end
  return reply
end
return resolved(keys, words, now, micros)
