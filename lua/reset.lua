-- reset: a breaker that is open, or half open -> closed
--
-- Forgets what the breaker of a type counted, for whoever knows that what failed is well again. What waits for it is looked
-- at again. Its probes that still run count like any run.
--
-- Returns 1, or 0 when there was nothing to forget.
-- @flags allow-oom
-- @include lib/clock
-- @include lib/report
local waits, meters, config, bell, events = unpack(KEYS)
local now, type = unpack(ARGV)

local level = redis.call("HGET", config, "level")
if (tonumber(level) or 1) > 1 then return redis.error_reply("LEVEL " .. level) end
if #type > 64 or not string.find(type, "^%w[%w._-]*$") then return redis.error_reply("INVALID type") end
now = clock(now)
redis.call("HLEN", meters)
redis.call("ZCARD", waits)
redis.call("XLEN", events)
local rung = redis.call("LLEN", bell)

if redis.call("HDEL", meters, "breaker " .. type) == 0 then return 0 end
redis.call("ZADD", waits, "XX", 0, "t" .. type)
if rung == 0 then redis.call("RPUSH", bell, string.format("%.0f", now)) end
report(events, "reset", "", now, { type })
return 1
