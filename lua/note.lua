-- note: running stays running; what its handler tells of it is kept
--
-- `field` is progress or checkpoint (any JSON; the newest stands) or log (a line of text; the newest 1,000 stay).
-- `seq`, a number of 1 or more, makes a line safe to repeat: within a run (a token) each stands once, in the order of
-- these numbers. Lines without one ("") stand as often as they are sent, in the order of their coming.
--
-- Returns for each note "running", "cancel" when the job was asked to stop, "stale" when the token does not own
-- the job any more, or "missing" when the id is not known.
-- @flags
-- @include lib/clock
-- @include lib/refusal
-- @include lib/int
local jobs, leases, known, notes, logs, config, counters = unpack(KEYS)
local now, count = unpack(ARGV) -- then `count` times: id, token, field, value, seq

local refused = refusal(redis.call("HGET", config, "level"), count, 2, 5)
if refused then return refused end
local micros
now, micros = clock(now)
redis.call("HLEN", notes)
redis.call("ZCARD", logs)
local last = math.max((tonumber(redis.call("HGET", counters, "log")) or 0) + 1, micros)

local reply, kept, lines, logged, said, placed = {}, {}, {}, {}, {}, false
for i = 1, tonumber(count) do
  local id, token, field, value, seq = item(2, 5, i)
  if field ~= "progress" and field ~= "checkpoint" and field ~= "log" then
    return redis.error_reply("INVALID field of item " .. i)
  end
  if seq ~= "" and not (#seq <= 15 and string.find(seq, "^%d+$")) then return redis.error_reply("INVALID seq of item " .. i) end
  local held = redis.call("HGET", leases, id)
  local its, asked = string.match(held or "", "^(%d+)|[^|]*|%d+|%d+|[^|]*|%d+|[^|]*|%d+|(%d)|")
  if its == token then
    if field == "log" then
      local start = string.format("%s:%016.0f%016.0f ", id, tonumber(token), seq ~= "" and tonumber(seq) or last)
      if seq == "" then
        last, placed = last + 1, true
      elseif said[start] or redis.call("ZLEXCOUNT", logs, "[" .. start, "(" .. string.sub(start, 1, -2) .. "!") > 0 then
        start = nil
      else
        said[start] = true
      end
      if start then
        lines[#lines + 1] = 0
        lines[#lines + 1] = start .. int(now) .. " " .. value
        logged[id] = true
      end
    else
      kept[#kept + 1] = id .. ":" .. field
      kept[#kept + 1] = value
    end
    reply[i] = asked ~= "0" and "cancel" or "running"
  else
    local there = held or redis.call("HEXISTS", jobs, id) == 1 or redis.call("HEXISTS", known, id) == 1
    reply[i] = there and "stale" or "missing"
  end
end

if #kept > 0 then redis.call("HSET", notes, unpack(kept)) end
if #lines > 0 then
  redis.call("ZADD", logs, unpack(lines))
  if placed then redis.call("HSET", counters, "log", int(last)) end
  for id in pairs(logged) do
    local from, to = "[" .. id .. ":", "(" .. id .. ";"
    local over = redis.call("ZLEXCOUNT", logs, from, to) - 1000
    if over > 0 then redis.call("ZREM", logs, unpack(redis.call("ZRANGEBYLEX", logs, from, to, "LIMIT", 0, math.min(over, 500)))) end
  end
end
return reply
