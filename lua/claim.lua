-- claim: ready -> running
--
-- Gives a worker up to `count` jobs under a lease, best score first, after making ready what is due
-- (bounded). A worker numbers its claims per queue: the same `turn` again is answered with the jobs of that
-- turn whose lease still stands, a lower one with nothing. `turn` may be any text that is not repeated
-- (REST's request_id), kept once it gave jobs, so that a long poll can ask again; or empty: then a lost answer
-- costs one lease. A bad record is buried as corrupt.
--
-- Returns how long to wait in ms before the next call (0 when jobs were given), 1 when the queue's sweep is
-- due, the time in ms, then for each job: id, token, attempt, when its lease ends (ms), when its timeout ends
-- (ms), its record, the record of its former runs and its checkpoint ("" for none).
-- @flags allow-oom
-- @include lib/clock
-- @include lib/refusal
-- @include lib/report
-- @include lib/ring
-- @include lib/int
local jobs, ready, scheduled, retrying, running, dead, leases, attempts, notes, receipts, expiries, types, config, counters, bell, events = unpack(KEYS)
local now, worker, turn, count, lease_ms, key_id, period_ms = unpack(ARGV)

local level, created, paused, step = unpack(redis.call("HMGET", config, "level", "created", "paused", "step"))
local refused = refusal(level, count, 7, 0)
if refused then return refused end
count = tonumber(count)
lease_ms, period_ms = lease_ms == "" and 30000 or tonumber(lease_ms), period_ms == "" and 10000 or tonumber(period_ms)
if not (lease_ms and lease_ms >= 1 and lease_ms <= 604800000) then return redis.error_reply("INVALID lease_ms") end
if not (period_ms and period_ms >= 1 and period_ms <= 604800000) then return redis.error_reply("INVALID period_ms") end
step = tonumber(step) or 60000000
if string.find(worker .. key_id .. turn, "[|\n]") then return redis.error_reply("INVALID worker, key_id or turn") end
local micros
now, micros = clock(now)
if not created then return { 4000 + micros % 2001, 0, int(now) } end

local marks = redis.call("HMGET", counters, "token", "keeper", "keeper_at", "swept_at", "sweep_told")
local token, keeper, keeper_at = math.max((tonumber(marks[1]) or 0) + 1, micros), marks[2], tonumber(marks[3])
local receipt = turn ~= "" and redis.call("HGET", receipts, worker) or nil
local reply = { 0, 0, int(now) }
redis.call("ZCARD", running)
redis.call("HLEN", leases)
redis.call("XLEN", events)
redis.call("LLEN", bell)
redis.call("ZCARD", dead)
redis.call("ZCARD", expiries)
redis.call("HLEN", receipts)

-- Only a job that ran before can have left a checkpoint.
local function checkpoint_of(id, history)
  return history ~= "" and redis.call("HGET", notes, id .. ":checkpoint") or ""
end

if receipt then
  local last, first, ids = string.match(receipt, "^([^|]*)|(%d+)|(.*)$")
  if last == turn then
    local nth = 0
    for id in string.gmatch(ids or "", "%S+") do
      local its = int(tonumber(first) + nth)
      local held, ends, attempt = string.match(redis.call("HGET", leases, id) or "", "^(%d+)|[^|]*|%d+|(%d+)|[^|]*|(%d+)|")
      local until_ms = redis.call("ZSCORE", running, id)
      if held == its and until_ms then
        local record, history = redis.call("HGET", jobs, id) or "", redis.call("HGET", attempts, id) or ""
        for _, part in ipairs({ id, its, attempt, until_ms, ends, record, history, checkpoint_of(id, history) }) do
          reply[#reply + 1] = part
        end
      end
      nth = nth + 1
    end
    return reply
  end
  if tonumber(last) and tonumber(turn) and tonumber(turn) < tonumber(last) then return { 4000 + micros % 2001, 0, int(now) } end
end

-- Reads records 25 at a time, so that a few large payloads end the batch and not the server's memory.
local function records_of(ids, budget)
  local records, bytes = {}, 0
  for from = 1, #ids, 25 do
    local page = redis.call("HMGET", jobs, unpack(ids, from, math.min(from + 24, #ids)))
    for i = 1, math.min(25, #ids - from + 1) do
      bytes = bytes + (page[i] and #page[i] or 0)
      if bytes > budget and #records > 0 then return records end
      records[#records + 1] = page[i]
    end
  end
  return records
end

-- What is due comes first into `found`, as {score, id, from}; what is ready already follows.
local found, due_ids, due_from = {}, {}, {}
for _, set in ipairs({ scheduled, retrying }) do
  for _, id in ipairs(redis.call("ZRANGEBYSCORE", set, "-inf", int(now * 1000 + 999), "LIMIT", 0, math.max(count, 100))) do
    due_ids[#due_ids + 1] = id
    due_from[id] = set
  end
end
local due_records = #due_ids > 0 and records_of(due_ids, 4194304) or {}
for i, record in ipairs(due_records) do
  local id = due_ids[i]
  local rank = tonumber(string.match(record or "", "^[^|\n]*|[^|\n]*|[^|\n]*|[^|\n]*|(%-?%d*)|")) or 0
  found[i] = { tonumber(redis.call("ZSCORE", due_from[id], id)) - rank * step, id, due_from[id] }
end
redis.call("ZCARD", ready)
local stood = paused and {} or redis.call("ZRANGE", ready, 0, count - 1, "WITHSCORES")
if #found > 0 then
  for i = 1, #stood, 2 do found[#found + 1] = { tonumber(stood[i + 1]), stood[i], ready } end
  table.sort(found, function(a, b) return a[1] < b[1] or a[1] == b[1] and a[2] < b[2] end)
end

local ids, scores = {}, {}
if #found > 0 then
  for i = 1, paused and 0 or math.min(count, #found) do ids[i], scores[i] = found[i][2], int(found[i][1]) end
else
  for i = 1, #stood, 2 do ids[#ids + 1], scores[#scores + 1] = stood[i], stood[i + 1] end
end
local records = records_of(ids, 4194304)
local histories = #records > 0 and redis.call("HLEN", attempts) > 0 and redis.call("HMGET", attempts, unpack(ids, 1, #records)) or {}
local limits = {}
local given, tokens, lease_texts, ends_of, corrupt, first = {}, {}, {}, {}, {}, token
for i, record in ipairs(records) do
  local kind, own, flags = string.match(record or "", "^([^|\n]+)|(%d*)|([^|\n]*)|%d+|%-?%d*|[^|\n]*|[^|\n]*\n[^\n]*\n.")
  local id = ids[i]
  if not kind then
    corrupt[#corrupt + 1] = id
  else
    local timeout = tonumber(own)
    if not timeout then
      if not limits[kind] then
        local set, declared = unpack(redis.call("HMGET", types, kind, ":" .. kind))
        limits[kind] = tonumber(string.match(set or "", "^(%d+)|")) or tonumber(string.match(declared or "", "^(%d+)|")) or 3600000
      end
      timeout = limits[kind]
    end
    local ends = now + timeout
    local until_ms = int(math.min(now + lease_ms, ends + 5000))
    local attempt = (tonumber(string.match(histories[i] or "", "^(%d+)|")) or 0) + 1
    local mine = int(token)
    token = token + 1
    given[#given + 1], tokens[#tokens + 1] = id, mine
    lease_texts[#lease_texts + 1] = id
    lease_texts[#lease_texts + 1] = table.concat({ mine, worker, int(now), int(ends), scores[i], attempt, flags, #record, 0, key_id }, "|")
    ends_of[#ends_of + 1] = until_ms
    ends_of[#ends_of + 1] = id
    local n = #reply
    reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4], reply[n + 5] = id, mine, attempt, until_ms, int(ends)
    local history = histories[i] or ""
    reply[n + 6], reply[n + 7], reply[n + 8] = record, history, checkpoint_of(id, history)
  end
end

-- From here on everything is written; a server that knows no flags lets all of it through after an HDEL.
redis.call("HDEL", receipts, "")
local taken, leave_ready, promoted = {}, {}, {}
for i = 1, #records do taken[ids[i]] = true end
if #found > 0 then
  local gone, rest = { [scheduled] = {}, [retrying] = {} }, {}
  for _, entry in ipairs(found) do
    if entry[3] == ready then
      if taken[entry[2]] then leave_ready[#leave_ready + 1] = entry[2] end
    else
      table.insert(gone[entry[3]], entry[2])
      if not taken[entry[2]] then
        rest[#rest + 1] = int(entry[1])
        rest[#rest + 1] = entry[2]
      end
    end
  end
  for set, members in pairs(gone) do if #members > 0 then redis.call("ZREM", set, unpack(members)) end end
  if #leave_ready > 0 then redis.call("ZREM", ready, unpack(leave_ready)) end
  if #rest > 0 then
    redis.call("ZADD", ready, unpack(rest))
    for i = 2, #rest, 2 do promoted[#promoted + 1] = rest[i] end
  end
elseif #records > 0 then
  redis.call("ZREMRANGEBYRANK", ready, 0, #records - 1)
end
if #given > 0 then
  redis.call("ZADD", running, unpack(ends_of))
  redis.call("HSET", leases, unpack(lease_texts))
  redis.call("HSET", counters, "token", int(token - 1))
end
for _, id in ipairs(corrupt) do
  redis.call("ZADD", dead, int(now), id)
  redis.call("HSET", attempts, id, "0|0|0|0|claim|dead|" .. int(now) .. "||corrupt|0|0")
  redis.call("HSETNX", jobs, id, "corrupt|||" .. int(now) .. "|||\n\nnull")
end
if turn ~= "" and (#given > 0 or tonumber(turn)) then
  redis.call("HSET", receipts, worker, turn .. "|" .. int(first) .. "|" .. table.concat(given, " "))
  redis.call("ZADD", expiries, int(now + math.max(2 * lease_ms, 600000)), ":" .. worker)
end
local swept_at, told = tonumber(marks[4]) or 0, tonumber(marks[5]) or 0
if math.abs(now - swept_at) >= period_ms and math.abs(now - told) >= period_ms then
  redis.call("HSET", counters, "sweep_told", int(now))
  reply[2] = 1
end

local left = not paused and redis.call("ZCARD", ready) or 0
if #given > 0 then
  if left > 0 or keeper == worker then ring({ bell = bell, counters = counters }, now, true) end
  if keeper == worker then redis.call("HDEL", counters, "keeper", "keeper_at") end
  report(events, "claim", worker, now, given, tokens)
else
  reply[1] = left > 0 and 1 or 4000 + micros % 2001
  local soon = math.huge
  for _, set in ipairs({ scheduled, retrying }) do
    local head = redis.call("ZRANGE", set, 0, 0, "WITHSCORES")
    if head[2] then soon = math.min(soon, math.floor(tonumber(head[2]) / 1000)) end
  end
  if not paused and soon <= now + 6000 then
    local kept = keeper ~= worker and keeper_at and keeper_at > now - 500 and keeper_at <= math.max(soon, now)
    if not kept then
      redis.call("HSET", counters, "keeper", worker, "keeper_at", int(soon))
      reply[1] = math.max(1, math.min(reply[1], soon - now))
    end
  end
end
if #promoted > 0 then report(events, "promote", worker, now, promoted) end
if #corrupt > 0 then report(events, "bury", worker, now, corrupt) end
return reply
