-- purge: waiting or ended -> gone
--
-- By ids (with a `state` only what stands there still); or the oldest of one `state` (not running) that ended, became
-- ready or are due by `before_ms`; or, with the state "expired", what every retention rule of the queue lets go, with
-- receipts and known ids whose time is over. One page of at most `limit` a call. A purged id is free at once; one that
-- retention lets go stays known until 60 s after its end.
-- `operation` is a page of one (lib/next_page): the call is refused unless it is the next, and counted with it.
--
-- Returns how many went and 1 when the page was full, then for each id "gone", the state that refuses ("running",
-- or one that is not `state`), or "missing"; of "expired" the ids of the jobs that are dead by their deadline.
-- @flags allow-oom
-- @include lib/refusal
-- @include lib/expire
-- @include lib/turn_page
-- @include lib/leave_line
local jobs, bodies, ready, scheduled, retrying, blocked, running, succeeded, cancelled, dead, dead_index, dead_groups, leases, attempts, results, known, expiries, receipts, notes, logs, dependents, awaits, parents, signals, opening, flows, operations, lanes, heads, turns, parked, lines, config, counters, bell, events = unpack(KEYS)
local now, operation, state, before_ms, limit, count = unpack(ARGV) -- then `count` times: id

local level, created = unpack(redis.call("HMGET", config, "level", "created"))
local refused = refusal(level, count, 6, 1, limit)
if refused then return refused end
local named = tonumber(count) or 0
local keys = { jobs = jobs, bodies = bodies, ready = ready, scheduled = scheduled, retrying = retrying, blocked = blocked,
  running = running, succeeded = succeeded, cancelled = cancelled, dead = dead, dead_index = dead_index,
  dead_groups = dead_groups, leases = leases, attempts = attempts, results = results, known = known,
  expiries = expiries, receipts = receipts, notes = notes, logs = logs, operations = operations, config = config,
  counters = counters, bell = bell, events = events, lanes = lanes, heads = heads, turns = turns, parked = parked,
  lines = lines,
  dependents = dependents, awaits = awaits, parents = parents, signals = signals, opening = opening, flows = flows }
local of, outrun
now, of, outrun = begin_page(keys, now, operation)
redis.call("HLEN", receipts)
if outrun then return outrun end
if not created and named == 0 then return { 0, 0 } end
limit = tonumber(limit) or 100

local reply, leaving, total, done = { 0, 0 }, {}, 0, {}
for i = 1, named do
  local id = item(6, 1, i)
  local its, _, ended = state_of(keys, id)
  if its and its ~= "running" and not done[id] and (state == "" or its == state) then
    done[id] = true
    leaving[its] = leaving[its] or {}
    table.insert(leaving[its], id)
    total = total + 1
    reply[#reply + 1] = "gone"
  elseif ended and not done[id] and state == "" then
    done[id] = true
    leaving.known = leaving.known or {}
    table.insert(leaving.known, id)
    total = total + 1
    reply[#reply + 1] = "gone"
  else
    reply[#reply + 1] = not done[id] and its or "missing"
  end
end
local states, before = " ready scheduled retrying blocked succeeded cancelled dead expired ", tonumber(before_ms)
if named == 0 and not string.find(states, " " .. state .. " ", 1, true) then return redis.error_reply("INVALID state") end
if before_ms ~= "" and not (before and before >= 0) then return redis.error_reply("INVALID before_ms") end
if named == 0 and state == "expired" then
  local went, more, late = expire(keys, now, limit)
  return { went, more, unpack(late) }
elseif named == 0 then
  local micro = state == "ready" or state == "scheduled" or state == "retrying"
  local last = before and string.format("%.0f", before * (micro and 1000 or 1)) or "+inf"
  local page
  if string.find(" succeeded cancelled dead ", " " .. state .. " ", 1, true) then
    page = redis.call("ZRANGEBYSCORE", keys[state], 0, last, "LIMIT", 0, limit)
    local until_own = last == "+inf" and "-inf" or "-" .. last
    local own = redis.call("ZREVRANGEBYSCORE", keys[state], "(0", until_own, "LIMIT", 0, limit - #page)
    for _, id in ipairs(own) do page[#page + 1] = id end
  else
    page = redis.call("ZRANGEBYSCORE", keys[state], "-inf", last, "LIMIT", 0, limit)
  end
  reply[2] = #page == limit and 1 or 0
  leaving[state], total = page, #page
end

local ids = {}
for its, list in pairs(leaving) do
  if its == "known" then
    for _, id in ipairs(list) do free_key(known, id, string.match(redis.call("HGET", known, id) or "", "\n(.*)$"), now, true) end
    redis.call("HDEL", known, unpack(list))
    redis.call("ZREM", expiries, unpack(list))
  else
    if its == "ready" and keys.laned then
      for _, id in ipairs(list) do leave_line(keys, id, redis.call("HGET", jobs, id)) end
    end
    drop(keys, its, list, now, true)
  end
  for _, id in ipairs(list) do ids[#ids + 1] = id end
end
reply[1] = total
turn_page(operations, of, total, now)
if total > 0 then
  tally(counters, { purge = total })
  report(events, "purge", "", now, ids)
end
return reply
