-- promote: scheduled, retrying -> ready
--
-- Makes ready what is due, at most `limit`; or, with ids, those now, whenever they were due ("run").
-- A due job's place in line is its due time, one that is run is placed now.
--
-- Returns how many were promoted and 1 when more are due, then for each id "ready", "already" when it was ready
-- before, the state that refused it, or "missing".
-- @flags allow-oom
-- @include lib/begin
-- @include lib/refusal
-- @include lib/state_of
-- @include lib/ring
-- @include lib/report
local jobs, ready, scheduled, retrying, blocked, running, succeeded, cancelled, dead, known, counters, config, bell, events = unpack(KEYS)
local now, limit, count = unpack(ARGV) -- then `count` times: id

local level, created, step = unpack(redis.call("HMGET", config, "level", "created", "step"))
local refused = refusal(level, count, 3, 1, limit)
if refused then return refused end
local named = tonumber(count) or 0
limit, step = tonumber(limit) or 100, tonumber(step) or 60000000
local keys = { jobs = jobs, ready = ready, scheduled = scheduled, retrying = retrying, blocked = blocked, running = running,
  succeeded = succeeded, cancelled = cancelled, dead = dead, known = known, counters = counters, bell = bell, events = events }
local sent = now
now = begin(keys, now)
if not created and named == 0 then return { 0, 0 } end

local reply, found, place, bytes, done = { 0, 0 }, {}, tonumber(redis.call("HGET", counters, "place")) or 0, 0, {}
local function take(id, state, at)
  local record = redis.call("HGET", jobs, id) or ""
  local rank = tonumber(string.match(record, "^[^|\n]*|[^|\n]*|[^|\n]*|[^|\n]*|(%-?%d*)|")) or 0
  bytes = bytes + #record
  found[#found + 1] = { id = id, state = state, score = at - rank * step }
end
if named > 0 then
  local micros = select(2, clock(sent))
  for i = 1, named do
    local id = item(3, 1, i)
    local state, _, ended = state_of(keys, id)
    if (state == "scheduled" or state == "retrying") and not done[id] then
      done[id] = true
      place = math.max(place + 1, micros)
      take(id, state, place)
      reply[#reply + 1] = "ready"
    else
      reply[#reply + 1] = done[id] and "ready" or state == "ready" and "already" or state or ended or "missing"
    end
  end
else
  for _, state in ipairs({ "scheduled", "retrying" }) do
    local due = redis.call("ZRANGEBYSCORE", keys[state], "-inf", string.format("%.0f", now * 1000 + 999), "WITHSCORES", "LIMIT", 0, limit)
    for i = 1, #due, 2 do
      if #found >= limit or bytes > 4194304 then
        reply[2] = 1
        break
      end
      take(due[i], state, tonumber(due[i + 1]))
    end
    if #due == 2 * limit then reply[2] = 1 end
  end
end
if #found == 0 then return reply end

reply[1] = #found
local ids, scores, from = {}, {}, { scheduled = {}, retrying = {} }
for i, entry in ipairs(found) do
  ids[i] = entry.id
  scores[#scores + 1] = string.format("%.0f", entry.score)
  scores[#scores + 1] = entry.id
  table.insert(from[entry.state], entry.id)
end
for state, members in pairs(from) do if #members > 0 then redis.call("ZREM", keys[state], unpack(members)) end end
redis.call("ZADD", ready, unpack(scores))
if named > 0 then redis.call("HSET", counters, "place", string.format("%.0f", place)) end
ring(keys, now, true)
report(events, "promote", "", now, ids)
return reply
