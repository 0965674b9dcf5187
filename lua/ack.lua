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
-- @include lib/settled
-- @include lib/trim
-- @include lib/free_slots
local jobs, running, leases, succeeded, attempts, results, known, expiries, notes, logs, dependents, awaits, parents, signals, opening, types, waits, slots, meters, config, counters, bell, events = unpack(KEYS)
local now, worker, count = unpack(ARGV) -- then `count` times: id, token, result

local level, in_lanes, counting, breakers, age, most, bytes = unpack(redis.call("HMGET", config, "level", "lanes", "slots", "breakers", "keep_succeeded_age", "keep_succeeded_count", "keep_succeeded_bytes"))
local refused = refusal(level, count, 3, 3)
if refused then return refused end
now = clock(now)
local keys = { jobs = jobs, leases = leases, succeeded = succeeded, attempts = attempts, results = results,
  known = known, expiries = expiries, notes = notes, logs = logs, counters = counters, events = events, waits = waits,
  types = types, slots = slots, meters = meters, bell = bell,
  dependents = dependents, awaits = awaits, parents = parents, signals = signals, opening = opening }
local ids = {}
for i = 1, tonumber(count) do ids[i] = item(3, 3, i) end
local held = redis.call("HMGET", leases, unpack(ids))
redis.call("ZCARD", running)
redis.call("HLEN", results)
redis.call("HLEN", counters)
redis.call("XLEN", events)
local followed = redis.call("ZCARD", dependents) > 0
if followed then
  redis.call("ZCARD", signals)
  redis.call("HLEN", notes)
  redis.call("LLEN", bell)
end

if laned(keys, in_lanes, counting, breakers) then keys.rung = redis.call("LLEN", bell) end
local reply, mine, tokens, scores, records, own = {}, {}, {}, {}, {}, {}
local gone, ended, timed, weight, gross, done = {}, {}, {}, 0, 0, {}
for i, id in ipairs(ids) do
  local _, token, result = item(3, 3, i)
  local its, by, started, attempt, flags, size =
    string.match(held[i] or "", "^(%d+)|([^|]*)|(%d+)|%d+|[^|]*|(%d+)|([^|]*)|(%d+)|")
  if its == token and not done[id] then
    done[id] = true
    local record = attempt .. "|0|0|" .. token .. "|ack|succeeded|" .. started .. "|" .. by .. "||0|0\n" .. result
    local score = now
    if flags ~= "" then
      local kept = tonumber(string.match(flags, "^r(%d+)"))
      if kept then
        score = -now
        own[#own + 1] = string.format("%.0f", now + kept)
        own[#own + 1] = id
        if kept == 0 then gone[#gone + 1] = id end
      elseif string.find(flags, " [dx]:") then
        timed[#timed + 1] = id
      end
    end
    mine[#mine + 1], tokens[#tokens + 1] = id, token
    if keys.laned then ended[#ended + 1] = { id = id, flags = flags, good = true } end
    scores[#scores + 1] = string.format("%.0f", score)
    scores[#scores + 1] = id
    records[#records + 1] = id
    records[#records + 1] = record
    gross = gross + tonumber(size)
    if score > 0 then weight = weight + tonumber(size) + #record end
    reply[i] = "succeeded"
  else
    reply[i] = its == token and "succeeded" or settled(keys, id, token, "ack")
  end
end
if #mine == 0 then return reply end
local beyond = excess(keys, "succeeded", { age, most, bytes }, now, #mine - #own / 2, weight)
if beyond or #own > 0 or #timed > 0 then
  for _, key in ipairs({ expiries, logs, awaits, opening }) do redis.call("ZCARD", key) end
  for _, key in ipairs({ jobs, attempts, known, notes, parents }) do redis.call("HLEN", key) end
end

redis.call("ZREM", running, unpack(mine))
redis.call("HDEL", leases, unpack(mine))
redis.call("ZADD", succeeded, unpack(scores))
redis.call("HSET", results, unpack(records))
if #own > 0 then redis.call("ZADD", expiries, unpack(own)) end
if #timed > 0 then redis.call("ZREM", expiries, unpack(timed)) end
tally(counters, { ack = #mine, bytes_succeeded = weight, bytes_unfinished = -gross })
if followed then
  local given = {}
  for i = 1, #mine do given[i] = string.match(records[2 * i], "\n(.*)$") end
  signal(keys, mine, "succeeded", now, given)
end
drop(keys, "succeeded", gone, now)
if beyond then trim(keys, "succeeded", beyond, now, math.max(100, #mine)) end
if free_slots(keys, ended, now) and keys.rung == 0 then redis.call("RPUSH", bell, string.format("%.0f", now)) end
report(events, "ack", worker, now, mine, tokens)
return reply
