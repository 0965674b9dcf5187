-- replay: dead -> ready
--
-- Runs dead jobs again: by ids (with `before_ms` none that died later), or the oldest that ended by `before_ms`, one page of
-- at most `limit` a call. attempt and crashes begin at 0, errors stay. A deadline that is to come holds, one that has
-- passed is dropped, and so is the expiry, as these jobs had started. With an id a payload may be given; the former one is
-- kept among the job's edits.
-- `operation` is a page of one (lib/next_page): the call is refused unless it is the next, and counted with it.
--
-- Returns how many were replayed and 1 when more are left, then for each id "ready", "already" when it was
-- ready before, the state that refuses it, or "missing".
-- @flags allow-oom
-- @include lib/refusal
-- @include lib/revive
-- @include lib/signal
-- @include lib/turn_page
-- @include lib/weight_of
local jobs, bodies, ready, scheduled, retrying, blocked, running, succeeded, cancelled, dead, dead_index, dead_groups, attempts, known, expiries, notes, dependents, signals, operations, lanes, heads, turns, parked, lines, config, counters, bell, events = unpack(KEYS)
local now, operation, before_ms, limit, count = unpack(ARGV) -- then `count` times: id, payload, crc

local level, created, step = unpack(redis.call("HMGET", config, "level", "created", "step"))
local refused = refusal(level, count, 5, 3, limit)
if refused then return refused end
local named = tonumber(count) or 0
local keys = { jobs = jobs, bodies = bodies, ready = ready, scheduled = scheduled, retrying = retrying, blocked = blocked,
  running = running, succeeded = succeeded, cancelled = cancelled, dead = dead, dead_index = dead_index,
  dead_groups = dead_groups, attempts = attempts, known = known, expiries = expiries, notes = notes,
  operations = operations, config = config, counters = counters, bell = bell, events = events, lanes = lanes,
  heads = heads, turns = turns, parked = parked, lines = lines,
  dependents = dependents, signals = signals }
local sent = now
local of, outrun
now, of, outrun = begin_page(keys, now, operation)
if outrun then return outrun end
if not created and named == 0 then return { 0, 0 } end
local micros = select(2, clock(sent))

local last = tonumber(before_ms)
if before_ms ~= "" and not (last and last >= 0) then return redis.error_reply("INVALID before_ms") end

local reply, chosen, done = { 0, 0 }, {}, {}
for i = 1, named do
  local id, payload, crc = item(5, 3, i)
  local state, died, ended = state_of(keys, id)
  if state == "dead" and last and math.abs(died) > last then
    reply[#reply + 1] = "dead"
  elseif state == "dead" and not done[id] then
    if string.find(crc, "[^%x]") then return redis.error_reply("INVALID crc of item " .. i) end
    done[id] = true
    chosen[#chosen + 1] = { id = id, payload = payload, crc = crc }
    reply[#reply + 1] = "ready"
  else
    reply[#reply + 1] = done[id] and "ready" or state == "ready" and "already" or state or ended or "missing"
  end
end
if named == 0 then
  local most, bytes = tonumber(limit) or 100, 0
  last = last or now
  local oldest = {
    redis.call("ZRANGEBYSCORE", dead, 0, last, "LIMIT", 0, most + 1),
    redis.call("ZREVRANGEBYSCORE", dead, "(0", -last, "LIMIT", 0, most + 1),
  }
  for _, page in ipairs(oldest) do
    for _, id in ipairs(page) do
      if #chosen == most or bytes > 4194304 then
        reply[2] = 1
        break
      end
      bytes = bytes + redis.call("HSTRLEN", jobs, id)
      chosen[#chosen + 1] = { id = id, payload = "", crc = "" }
    end
  end
end
reply[1] = #chosen
for _, job in ipairs(chosen) do
  local record = redis.call("HGET", jobs, job.id) or ""
  job.bytes = weight_of(keys, job.id, record)
  job.rank = tonumber(string.match(record, "^[^|\n]*|[^|\n]*|[^|\n]*|[^|\n]*|(%-?%d*)|")) or 0
  local before, flags, rest = string.match(record, "^([^|\n]*|[^|\n]*|)([^|\n]*)(.*)$")
  if flags and string.find(flags, " [dx]:") then
    job.deadline = string.match(flags, " d:(%d+)")
    if job.deadline and tonumber(job.deadline) <= now then job.deadline = nil end
    flags = string.gsub(flags, job.deadline and " x:%d+" or " [dx]:%d+", "")
    job.record = before .. flags .. rest
  end
  job.head = string.match(job.record or record, "^[^\n]*")
  if job.payload ~= "" then job.record, job.edits = job.record or record, redis.call("HGET", notes, job.id .. ":edits") end
end
if #chosen > 0 then
  revive(keys, chosen, tonumber(step) or 60000000, now, micros)
  local ids = {}
  for i, job in ipairs(chosen) do ids[i] = job.id end
  signal(keys, ids, "revived", now)
end
turn_page(operations, of, #chosen, now)
return reply
