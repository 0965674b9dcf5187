-- flow_open: building -> running; all of a flow's jobs are there, those that wait for nothing else may start
--
-- Returns "running", also when it was open before; the state of a flow that is further or "undone", or "missing".
-- @flags allow-oom
-- @include lib/begin
-- @include lib/signal
-- @include lib/report
local dependents, signals, opening, flows, notes, config, counters, bell, events = unpack(KEYS)
local now, flow = unpack(ARGV)

local level = redis.call("HGET", config, "level")
if (tonumber(level) or 1) > 1 then return redis.error_reply("LEVEL " .. level) end
local keys = { dependents = dependents, signals = signals, opening = opening, flows = flows, notes = notes, config = config,
  counters = counters, bell = bell, events = events }
now = begin(keys, now)
local state, rest = string.match(redis.call("HGET", flows, flow) or "", "^(%a+)|%d*(|.*)$")
if state ~= "building" then return state or "missing" end
redis.call("ZREM", opening, "=" .. flow)
redis.call("HSET", flows, flow, "running|" .. string.format("%.0f", now) .. rest)
signal(keys, { "=" .. flow }, "succeeded", now)
report(events, "flow_open", "", now, { "=" .. flow })
return "running"
