-- flow_cancel: a flow is asked to stop: what ends from now on ends it as cancelled
--
-- Its jobs are cancelled by themselves (cancel), after this.
--
-- Returns the state of the flow: "running" for one that was asked, its end for one that has ended, or "missing".
-- @flags allow-oom
-- @include lib/begin
-- @include lib/report
local flows, config, counters, bell, events = unpack(KEYS)
local now, flow = unpack(ARGV)

local level = redis.call("HGET", config, "level")
if (tonumber(level) or 1) > 1 then return redis.error_reply("LEVEL " .. level) end
now = begin({ flows = flows, config = config, counters = counters, bell = bell, events = events }, now)
local state, opened, asked, rest = string.match(redis.call("HGET", flows, flow) or "", "^(%a+)|(%d*)|%d*|(%d*)(|.*)$")
if state ~= "running" or asked ~= "" then return state or "missing" end
redis.call("HDEL", counters, "") -- a server that knows no flags lets HSET through after it
redis.call("HSET", flows, flow, "running|" .. opened .. "||" .. string.format("%.0f", now) .. rest)
report(events, "flow_cancel", "", now, { "=" .. flow })
return "running"
