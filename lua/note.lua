-- note: running stays running; what its handler tells of it is kept
--
-- `field` is progress or checkpoint (any JSON; the newest stands) or log (a line of text; the newest 1,000 stay).
--
-- Returns for each note "running", "cancel" when the job was asked to stop, "stale" when the token does not own
-- the job any more, or "missing" when the id is not known.
-- @flags
-- @include lib/clock
-- @include lib/refusal
-- @include lib/int
local jobs, leases, known, notes, logs, config, counters = unpack(KEYS)
local now, count = unpack(ARGV) -- then `count` times: id, token, field, value

local refused = refusal(redis.call("HGET", config, "level"), count, 2, 4)
if refused then return refused end
local micros
micros = select(2, clock(now))
redis.call("HLEN", notes)
redis.call("ZCARD", logs)
local last = math.max((tonumber(redis.call("HGET", counters, "log")) or 0) + 1, micros)

local reply, kept, lines, logged = {}, {}, {}, {}
for i = 1, tonumber(count) do
  local id, token, field, value = item(2, 4, i)
  if field ~= "progress" and field ~= "checkpoint" and field ~= "log" then
    return redis.error_reply("INVALID field of item " .. i)
  end
  local held = redis.call("HGET", leases, id)
  local its, asked = string.match(held or "", "^(%d+)|[^|]*|%d+|%d+|[^|]*|%d+|[^|]*|%d+|(%d)|")
  if its == token then
    if field == "log" then
      lines[#lines + 1] = 0
      lines[#lines + 1] = string.format("%s:%016.0f %s", id, last, value)
      last = last + 1
      logged[id] = true
    else
      kept[#kept + 1] = id .. ":" .. field
      kept[#kept + 1] = value
    end
    reply[i] = asked == "1" and "cancel" or "running"
  else
    local there = held or redis.call("HEXISTS", jobs, id) == 1 or redis.call("HEXISTS", known, id) == 1
    reply[i] = there and "stale" or "missing"
  end
end

if #kept > 0 then redis.call("HSET", notes, unpack(kept)) end
if #lines > 0 then
  redis.call("ZADD", logs, unpack(lines))
  redis.call("HSET", counters, "log", int(last))
  for id in pairs(logged) do
    local from, to = "[" .. id .. ":", "(" .. id .. ";"
    local over = redis.call("ZLEXCOUNT", logs, from, to) - 1000
    if over > 0 then redis.call("ZREM", logs, unpack(redis.call("ZRANGEBYLEX", logs, from, to, "LIMIT", 0, math.min(over, 500)))) end
  end
end
return reply
