-- promote: scheduled, retrying -> ready
--
-- Makes ready what is due, at most `limit`; or, with ids, those now, whenever they were due ("run").
-- A due job's place in line is its due time, one that is run is placed now.
-- `operation` is a page of one (lib/next_page): the call is refused unless it is the next, and counted with it.
--
-- Returns how many were promoted and 1 when more are due, then for each id "ready", "already" when it was ready
-- before, the state that refused it, or "missing".
-- @flags allow-oom
-- @include lib/refusal
-- @include lib/raise
-- @include lib/announce
-- @include lib/turn_page
local jobs, ready, scheduled, retrying, blocked, running, succeeded, cancelled, dead, known, counters, operations, lanes, heads, turns, parked, lines, config, bell, events = unpack(KEYS)
local now, operation, limit, count = unpack(ARGV) -- then `count` times: id

local level, created, step = unpack(redis.call("HMGET", config, "level", "created", "step"))
local refused = refusal(level, count, 4, 1, limit)
if refused then return refused end
local named = tonumber(count) or 0
limit, step = tonumber(limit) or 100, tonumber(step) or 60000000
local keys = { jobs = jobs, ready = ready, scheduled = scheduled, retrying = retrying, blocked = blocked,
  running = running, succeeded = succeeded, cancelled = cancelled, dead = dead, known = known, operations = operations,
  counters = counters, bell = bell, events = events, config = config, lanes = lanes, heads = heads, turns = turns,
  parked = parked, lines = lines }
local sent = now
local of, outrun
now, of, outrun = begin_page(keys, now, operation)
if outrun then return outrun end
if not created and named == 0 then return { 0, 0 } end

if named == 0 then
  local ids, soonest = raise(keys, now, limit, step)
  if #ids > 0 then announce(keys, "promote", "", now, { ids = ids, runnable = true }) end
  return { #ids, soonest <= now and 1 or 0 }
end

local place, micros = tonumber(redis.call("HGET", counters, "place")) or 0, select(2, clock(sent))
local reply, ids, list, from, done = { 0, 0 }, {}, {}, { scheduled = {}, retrying = {} }, {}
for i = 1, named do
  local id = item(4, 1, i)
  local state, _, ended = state_of(keys, id)
  if from[state or ""] and not done[id] then
    done[id] = true
    local record = redis.call("HGET", jobs, id) or ""
    local rank = tonumber(string.match(record, "^[^|\n]*|[^|\n]*|[^|\n]*|[^|\n]*|(%-?%d*)|")) or 0
    place = math.max(place + 1, micros)
    ids[#ids + 1] = id
    table.insert(from[state], id)
    list[#list + 1] = { id = id, score = int(place - rank * step), record = string.match(record, "^[^\n]*") }
    reply[#reply + 1] = "ready"
  else
    reply[#reply + 1] = done[id] and "ready" or state == "ready" and "already" or state or ended or "missing"
  end
end
if #ids == 0 then
  turn_page(operations, of, 0, now)
  return reply
end

reply[1] = #ids
for state, members in pairs(from) do if #members > 0 then redis.call("ZREM", keys[state], unpack(members)) end end
to_ready(keys, list)
redis.call("HSET", counters, "place", int(place))
turn_page(operations, of, #ids, now)
announce(keys, "promote", "", now, { ids = ids, runnable = true })
return reply
