-- extend: running stays running, its lease ends later
--
-- The heartbeat of a whole batch. A lease never ends later than the attempt's timeout and 5 s of grace.
--
-- Returns for each job "running", "cancel" when it was asked to stop (its lease is extended all the same),
-- "stale" when the token does not own the job any more, or "missing" when the id is not known.
-- @flags allow-oom
-- @include lib/clock
-- @include lib/refusal
-- @include lib/int
local jobs, running, leases, known, config = unpack(KEYS)
local now, count = unpack(ARGV) -- then `count` times: id, token, lease_ms

local refused = refusal(redis.call("HGET", config, "level"), count, 2, 3)
if refused then return refused end
now = clock(now)
local ids = {}
for i = 1, tonumber(count) do ids[i] = item(2, 3, i) end
local held = redis.call("HMGET", leases, unpack(ids))
local ends_now = redis.call("ZMSCORE", running, unpack(ids))

local reply, scores = {}, {}
for i, id in ipairs(ids) do
  local _, token, lease_ms = item(2, 3, i)
  local span = lease_ms == "" and 30000 or tonumber(lease_ms)
  if not (span and span >= 0) then return redis.error_reply("INVALID lease_ms of item " .. i) end
  local its, ends, asked = string.match(held[i] or "", "^(%d+)|[^|]*|%d+|(%d+)|[^|]*|%d+|[^|]*|%d+|(%d)|")
  if its == token and ends_now[i] then
    local until_ms = math.min(now + span, tonumber(ends) + 5000)
    if until_ms > tonumber(ends_now[i]) then
      scores[#scores + 1] = int(until_ms)
      scores[#scores + 1] = id
    end
    reply[i] = asked ~= "0" and "cancel" or "running"
  else
    local there = held[i] or redis.call("HEXISTS", jobs, id) == 1 or redis.call("HEXISTS", known, id) == 1
    reply[i] = there and "stale" or "missing"
  end
end
if #scores > 0 then
  redis.call("HDEL", leases, "") -- a server that knows no flags lets ZADD through after it
  redis.call("ZADD", running, "XX", unpack(scores))
end
return reply
