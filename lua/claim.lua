-- claim: ready -> running
--
-- Gives a worker up to `count` jobs under a lease, best score first, after making ready what is due
-- (bounded). A worker numbers its claims per queue: the same `turn` again is answered with the jobs of that
-- turn whose lease still stands, a lower one with nothing. `turn` may be any text that is not repeated
-- (REST's request_id), kept once it gave jobs, so that a long poll can ask again; or empty: then a lost answer
-- costs one lease. A bad record is buried as corrupt; what waited beyond its deadline is ended. `patience_ms` is how
-- long the caller may wait before it asks again (empty: as long as it is told): one who asks but once is not made the
-- timekeeper.
--
-- Returns how long to wait in ms before the next call (0 when jobs were given, or when a text's turn was answered
-- before), 1 when the queue's sweep is due and 2 when there is word for jobs that wait for others (lua/relay.lua; 3: both), the
-- time in ms, then for each job: id, token, attempt, when its lease ends (ms), when its timeout ends (ms), its record,
-- the record of its former runs and its checkpoint ("" for none).
-- @flags allow-oom
-- @include lib/clock
-- @include lib/refusal
-- @include lib/raise
-- @include lib/draw
-- @include lib/lapse
local jobs, bodies, ready, scheduled, retrying, running, cancelled, dead, dead_index, dead_groups, leases, attempts, notes, dependents, signals, receipts, expiries, types, lanes, heads, turns, parked, lines, waits, slots, meters, groups, config, counters, bell, events = unpack(KEYS)
local now, worker, turn, count, lease_ms, key_id, period_ms, patience_ms, only = unpack(ARGV)

local level, created, paused, step, in_lanes, counting = unpack(redis.call("HMGET", config, "level", "created", "paused", "step", "lanes", "slots"))
if count == "" then count = "1" end
local refused = refusal(level, count, 9, 0)
if refused then return refused end
count = tonumber(count)
lease_ms, period_ms = lease_ms == "" and 30000 or tonumber(lease_ms), period_ms == "" and 10000 or tonumber(period_ms)
if not (lease_ms and lease_ms >= 1 and lease_ms <= 604800000) then return redis.error_reply("INVALID lease_ms") end
if not (period_ms and period_ms >= 1 and period_ms <= 604800000) then return redis.error_reply("INVALID period_ms") end
local patience = patience_ms == "" and 6000 or tonumber(patience_ms)
if not (patience and patience >= 0) then return redis.error_reply("INVALID patience_ms") end
if #worker > 128 or not string.find(worker, "^[%w._:@-]+$") or string.find(key_id .. turn, "[|\n]") then
  return redis.error_reply("INVALID worker, key_id or turn")
end
local micros
now, micros = clock(now)
local reply = { 4000 + micros % 2001, 0, int(now) }
if not created then return reply end

local marks = redis.call("HMGET", counters, "token", "keeper", "keeper_at", "swept_at", "sweep_told", "filed", "counted",
  "relay_told")
local first, keeper, keeper_at = math.max((tonumber(marks[1]) or 0) + 1, micros), marks[2], tonumber(marks[3])
-- A turn that is a number is a worker's own, its next one follows; any other has a receipt of its own, since
-- several may be under way in one name.
local name = (turn == "" or tonumber(turn)) and worker or worker .. "/" .. turn
local receipt = redis.call("HGET", receipts, name)
if #only > 6500 or string.find(only, "[^%w._ -]") then return redis.error_reply("INVALID only") end
local keys = { jobs = jobs, bodies = bodies,
  ready = ready, scheduled = scheduled, retrying = retrying, notes = notes, dependents = dependents,
  signals = signals, counters = counters, bell = bell }
if in_lanes or only ~= "" then
  keys.lanes, keys.heads, keys.turns, keys.parked, keys.lines = lanes, heads, turns, parked, lines
  keys.waits, keys.slots, keys.meters, keys.groups, keys.types = waits, slots, meters, groups, types
  keys.running, keys.leases, keys.config = running, leases, config
  laned(keys, only ~= "" and "2" or in_lanes, counting)
end
keys.rung = redis.call("LLEN", bell)
redis.call("ZCARD", running)
redis.call("HLEN", leases)
redis.call("XLEN", events)
local signalled = redis.call("ZCARD", signals) > 0
if redis.call("ZCARD", dependents) > 0 then redis.call("HLEN", notes) end
local seasoned = redis.call("HLEN", attempts) > 0

-- Only a job that ran before can have left a checkpoint.
local function checkpoint_of(id, history)
  return history ~= "" and redis.call("HGET", notes, id .. ":checkpoint") or ""
end

local last, last_first, kept_until, last_ids = string.match(receipt or "", "^([^|]*)|(%d+)|(%d+)|(.*)$")
if turn ~= "" and last == turn then
  local nth, found = tonumber(last_first), {}
  for id in string.gmatch(last_ids, "%S+") do
    local held, ends, attempt = string.match(redis.call("HGET", leases, id) or "", "^(%d+)|[^|]*|%d+|(%d+)|[^|]*|(%d+)|")
    local until_ms = redis.call("ZSCORE", running, id)
    if held == int(nth) and until_ms then
      local record, history = full_record(keys, id, redis.call("HGET", jobs, id) or ""), redis.call("HGET", attempts, id) or ""
      for _, part in ipairs({ id, held, attempt, until_ms, ends, record, history, checkpoint_of(id, history) }) do
        found[#found + 1] = part
      end
    end
    nth = nth + 1
  end
  if #found > 0 or not tonumber(turn) then reply[1] = 0 end
  for _, part in ipairs(found) do reply[#reply + 1] = part end
  return reply
end
if tonumber(last) and tonumber(turn) and tonumber(turn) < tonumber(last) then return reply end
-- A receipt is kept for as long as its turn may be asked again; its end is written anew when half of that is over.
local spell = math.max(2 * lease_ms, 600000)
local renew = turn ~= "" and (not kept_until or tonumber(kept_until) < now + spell / 2)
if renew then redis.call("ZCARD", expiries) end

-- What is due becomes ready first: a transition of its own, complete whatever follows.
local soonest = math.huge
for _, set in ipairs({ scheduled, retrying }) do
  local head = redis.call("ZRANGE", set, 0, 0, "WITHSCORES")
  if head[2] then soonest = math.min(soonest, math.floor(tonumber(head[2]) / 1000)) end
end
if soonest <= now then
  for _, key in ipairs({ ready, cancelled, dead, dead_index, dead_groups, expiries }) do redis.call("ZCARD", key) end
  for _, key in ipairs({ jobs, bodies, types, notes }) do redis.call("HLEN", key) end
  local promoted
  promoted, soonest = raise(keys, now, math.max(count, 100), tonumber(step) or 60000000)
  report(events, "promote", worker, now, promoted)
end
local waiting = redis.call("ZCARD", ready)
local ids, scores, drawn = {}, {}, nil
if paused then
  waiting = 0
elseif keys.laned then
  drawn = draw(keys, now, micros, count, only, in_lanes, marks[6], marks[7])
  ids, scores, waiting = drawn.ids, drawn.scores, 0
else
  local line = redis.call("ZRANGE", ready, 0, count - 1, "WITHSCORES")
  for i = 1, #line, 2 do ids[#ids + 1], scores[#scores + 1] = line[i], line[i + 1] end
end

-- Records are read a few at a time, then more, so that large ones end the batch and not the server's memory.
local records, histories, bytes, from, size = {}, {}, 0, 1, 4
for _ = 1, #ids do
  if from > #ids or bytes > 4194304 then break end
  local last_id = math.min(from + size - 1, #ids)
  local page = redis.call("HMGET", jobs, unpack(ids, from, last_id))
  local runs = seasoned and redis.call("HMGET", attempts, unpack(ids, from, last_id)) or {}
  for i = 1, last_id - from + 1 do
    local record = page[i]
    bytes = bytes + (record and weight_of(keys, ids[from + i - 1], record) or 0) + (runs[i] and #runs[i] or 0)
    -- A job whose last run crashed is given alone: if it ends its worker again, it ends no other job.
    local alone = runs[i] and string.find(runs[i], "^%d+|[1-9]")
    if (bytes > 4194304 or alone) and #records > 0 then
      bytes = math.huge
      break
    end
    records[#records + 1], histories[#records + 1] = record and full_record(keys, ids[from + i - 1], record), runs[i]
    if alone then
      bytes = math.huge
      break
    end
  end
  from, size = last_id + 1, math.min(2 * size, 100)
end
local void = {}
local token_text, reckoned, ends, until_ms = digits(), nil, nil, nil
local limits, given, tokens, lease_texts, ends_of, corrupt, late = {}, {}, {}, {}, {}, {}, {}
local token, from_now = first, "|" .. worker .. "|" .. int(now) .. "|"
for i, record in ipairs(records) do
  local kind, own, flags = string.match(record or "", "^([^|\n]+)|(%d*)|([^|\n]*)|%d+|%-?%d*|[^|\n]*|[^|\n]*\n[^\n]*\n.")
  local id, history = ids[i], histories[i] or ""
  local timed = kind and flags ~= "" and string.find(flags, " [dx]:")
  local former = tonumber(string.match(history, "^(%d+)|")) or 0
  local over = timed and lapses(flags, former)
  if drawn and drawn.gone[id] then
    void[id] = true
  elseif not kind then
    corrupt[#corrupt + 1] = id
    void[id] = true
  elseif over and over <= now then
    late[#late + 1] = { id = id, flags = flags, bytes = #record, history = history }
    void[id] = true
  else
    local timeout = tonumber(own) or limits[kind]
    if not timeout then
      local set, declared = unpack(redis.call("HMGET", types, kind, ":" .. kind))
      timeout = tonumber(string.match(set or "", "^(%d+)|")) or tonumber(string.match(declared or "", "^(%d+)|")) or 3600000
      limits[kind] = timeout
    end
    -- The attempt ends with the job's deadline: nothing holds its lease longer, and a retry could not start any more.
    if timed then timeout = math.min(timeout, (tonumber(string.match(flags, " d:(%d+)")) or math.huge) - now) end
    if timeout ~= reckoned then -- most jobs of a call have the same
      reckoned, ends, until_ms = timeout, int(now + timeout), int(math.min(now + lease_ms, now + timeout + 5000))
    end
    local mine, attempt = token_text(token), former + 1
    if keys.counting then
      local probe = drawn.probe(kind)
      flags = flags .. " t:" .. kind .. (probe and " p:" .. probe or "")
    end
    token = token + 1
    local nth = #given + 1
    given[nth], tokens[nth] = id, mine
    lease_texts[2 * nth - 1] = id
    lease_texts[2 * nth] = mine .. from_now .. ends .. "|" .. scores[i] .. "|" .. attempt .. "|" .. flags .. "|" .. #record
      .. "|0|" .. key_id
    ends_of[2 * nth - 1], ends_of[2 * nth] = until_ms, id
    local n = #reply
    reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4], reply[n + 5] = id, mine, attempt, until_ms, ends
    reply[n + 6], reply[n + 7], reply[n + 8] = record, history, checkpoint_of(id, history)
  end
end
local sums, damaged = {}, "0000000000000000" -- what has no type is one group
if #corrupt > 0 then
  for _, key in ipairs({ dead, dead_index, dead_groups }) do redis.call("ZCARD", key) end
  redis.call("HLEN", bodies)
  sums = redis.call("HMGET", counters, "dead", "bytes_dead", "bytes_unfinished")
end
if #late > 0 then
  for _, key in ipairs({ cancelled, dead, dead_index, dead_groups, expiries }) do redis.call("ZCARD", key) end
end

-- From here on everything is written.
local told, left = {}, waiting - #records
if drawn then
  if #records > 0 then redis.call("ZREM", ready, unpack(ids, 1, #records)) end
  local more, frees, served = drawn.take(#records, void)
  told = served and { "turn", served } or {}
  left, soonest = more and 1 or 0, math.min(soonest, frees)
elseif #records > 0 then
  redis.call("ZREMRANGEBYRANK", ready, 0, #records - 1)
else
  redis.call("HDEL", counters, "") -- a server that knows no flags lets HSET through after it
end
if #given > 0 then
  redis.call("ZADD", running, unpack(ends_of))
  redis.call("HSET", leases, unpack(lease_texts))
  told[#told + 1], told[#told + 2] = "token", int(token - 1)
  reply[1] = 0
elseif left > 0 and not paused then
  reply[1] = 1
elseif not paused and soonest <= now + math.min(patience, 6000) then
  if keeper == worker or not keeper_at or keeper_at <= now - 500 or keeper_at > math.max(soonest, now) then
    told[#told + 1], told[#told + 2], told[#told + 3], told[#told + 4] = "keeper", worker, "keeper_at", int(soonest)
    reply[1] = math.max(1, math.min(reply[1], soonest - now))
  end
end
local swept_at, asked_at = tonumber(marks[4]) or 0, tonumber(marks[5]) or 0
if math.abs(now - swept_at) >= period_ms and math.abs(now - asked_at) >= period_ms then
  told[#told + 1], told[#told + 2] = "sweep_told", int(now)
  reply[2] = 1
end
if signalled and math.abs(now - (tonumber(marks[8]) or 0)) >= 500 then
  told[#told + 1], told[#told + 2] = "relay_told", int(now)
  reply[2] = reply[2] + 2
end
if #told > 0 then redis.call("HSET", counters, unpack(told)) end
for _, id in ipairs(corrupt) do
  redis.call("ZADD", dead, int(now), id)
  local errors = string.match(redis.call("HGET", attempts, id) or "", "\n.*$") or ""
  redis.call("HSET", attempts, id, "0|0|0|0|claim|dead|" .. int(now) .. "||corrupt|0|0|" .. damaged .. errors)
  redis.call("ZADD", dead_index, 0, string.format("%s%015.0f%s", damaged, now, id))
  redis.call("ZADD", dead_groups, int(now), damaged)
  sums[3] = (tonumber(sums[3]) or 0) - redis.call("HSTRLEN", jobs, id) - redis.call("HSTRLEN", bodies, id)
  redis.call("HSETNX", jobs, id, "corrupt|||" .. int(now) .. "|||\n\nnull")
  sums[2] = (tonumber(sums[2]) or 0) + redis.call("HSTRLEN", jobs, id) + redis.call("HSTRLEN", bodies, id)
end
if #corrupt > 0 then
  redis.call("HSET", counters, "dead", int((tonumber(sums[1]) or 0) + #corrupt), "bytes_dead", int(sums[2]),
    "bytes_unfinished", int(math.max(0, sums[3])))
  signal(keys, corrupt, "dead", now)
end
if #late > 0 then
  lapse({ jobs = jobs, cancelled = cancelled, dead = dead, dead_index = dead_index, dead_groups = dead_groups,
    attempts = attempts, notes = notes, dependents = dependents, signals = signals, expiries = expiries,
    counters = counters, bell = bell, events = events }, late, now)
end
if turn ~= "" and (#given > 0 or tonumber(turn)) then
  local kept = renew and int(now + spell) or kept_until
  redis.call("HSET", receipts, name, turn .. "|" .. int(first) .. "|" .. kept .. "|" .. table.concat(given, " "))
  if renew then redis.call("ZADD", expiries, int(now + spell), ":" .. name) end
end
if #given > 0 then
  if not paused and left > 0 or keeper == worker then ring(keys, now, true) end
  if keeper == worker then redis.call("HDEL", counters, "keeper", "keeper_at") end
  report(events, "claim", worker, now, given, tokens)
end
if #corrupt > 0 then report(events, "bury", worker, now, corrupt) end
return reply
