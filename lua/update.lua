-- update: scheduled, blocked, ready or retrying, changed in place
--
-- Changes priority, time, payload or header of jobs that have not started; "" leaves a thing as it is. `header`
-- is taken only while the standing one equals `header_before`, so that two writers lose nothing. A time in the
-- past makes the job ready, one to come makes it scheduled (a retrying one stays retrying). A blocked job has no
-- time of its own: it is refused one.
--
-- Returns for each job the state it is in now, "changed" when another header stands, "running" or the ended
-- state that refuses, or "missing".
-- @flags
-- @include lib/begin
-- @include lib/refusal
-- @include lib/state_of
-- @include lib/revise
-- @include lib/place_of
local jobs, bodies, ready, scheduled, retrying, blocked, running, succeeded, cancelled, dead, known, notes, lanes, heads, turns, parked, lines, config, counters, bell, events = unpack(KEYS)
local now, count = unpack(ARGV) -- then `count` times: id, priority, delay_ms, run_at_ms, payload, crc, header_before, header

local level, step = unpack(redis.call("HMGET", config, "level", "step"))
local refused = refusal(level, count, 2, 8)
if refused then return refused end
step = tonumber(step) or 60000000
local keys = { jobs = jobs, bodies = bodies, ready = ready, scheduled = scheduled, retrying = retrying, blocked = blocked,
  running = running, succeeded = succeeded, cancelled = cancelled, dead = dead, known = known, notes = notes,
  config = config, counters = counters, bell = bell, events = events, lanes = lanes, heads = heads, turns = turns,
  parked = parked, lines = lines }
local micros = select(2, clock(now))
now = begin(keys, now)
local place = tonumber(redis.call("HGET", counters, "place")) or 0

local reply, changes, done = {}, {}, {}
for i = 1, tonumber(count) do
  local id, priority, delay_ms, run_at_ms, payload, crc, before, header = item(2, 8, i)
  local rank, delay, at = tonumber(priority), tonumber(delay_ms), tonumber(run_at_ms)
  if priority ~= "" and not (rank and rank % 1 == 0 and rank >= -100 and rank <= 100) then
    return redis.error_reply("INVALID priority of item " .. i)
  end
  local due = delay and now + delay or at
  if (delay_ms ~= "" or run_at_ms ~= "") and not (due and due >= 0 and due <= now + 315576000000) then
    return redis.error_reply("INVALID time of item " .. i)
  end
  if string.find(crc, "[^%x]") or string.find(header, "\n") then return redis.error_reply("INVALID header of item " .. i) end
  local state, score, ended = state_of(keys, id)
  local record = state and redis.call("HGET", jobs, id) or ""
  local start, former, hash, standing, body =
    string.match(record, "^([^|\n]*|[^|\n]*|[^|\n]*|[^|\n]*|)([^|\n]*)|([^\n]*)\n([^\n]*)\n(.*)$")
  if done[id] then
    reply[i] = "changed"
  elseif not state then
    reply[i] = ended or "missing"
  elseif not start or state ~= "ready" and state ~= "scheduled" and state ~= "retrying" and state ~= "blocked" then
    reply[i] = state
  elseif header ~= "" and standing ~= before or state == "blocked" and due then
    reply[i] = state == "blocked" and due and "blocked" or "changed"
  else
    done[id] = true
    local old = tonumber(former) or 0
    local new = rank or old
    local change = { id = id, from = state, to = state, score = score, edits = redis.call("HGET", notes, id .. ":edits") }
    if state == "ready" and new ~= old then
      local created = tonumber(string.match(start, "|(%d+)|$")) or now
      change.score = place_of(score, old, step, created, micros) - new * step
    end
    if due and due <= now and state ~= "ready" then
      place = math.max(place + 1, micros)
      change.to, change.score = "ready", place - new * step
    elseif due and due > now then
      change.to, change.score, change.due = state == "ready" and "scheduled" or state, due * 1000, due
    end
    local kept = header ~= "" and header or standing
    change.record = start .. (new ~= 0 and new or "") .. "|" .. hash .. "\n" .. kept .. "\n" .. body
    change.payload, change.crc = payload, crc
    changes[#changes + 1] = change
    reply[i] = change.to
  end
end
revise(keys, changes, place, now)
return reply
