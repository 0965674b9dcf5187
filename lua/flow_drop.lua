-- flow_drop: building -> undone -> gone; a flow that was not opened is taken back
--
-- With `step` "undo" it can be opened no more, and whoever takes it back purges its jobs then; with "gone" it is no more.
-- Before `older_ms` after its first page one that is building is left alone: somebody may be at it.
--
-- Returns "undone", "gone", the state that refuses, or "missing".
-- @flags allow-oom
-- @include lib/begin
-- @include lib/disband
local jobs, known, expiries, dependents, awaits, parents, signals, opening, flows, config, counters, bell, events = unpack(KEYS)
local now, flow, step, older_ms = unpack(ARGV)

local level = redis.call("HGET", config, "level")
if (tonumber(level) or 1) > 1 then return redis.error_reply("LEVEL " .. level) end
local keys = { jobs = jobs, known = known, expiries = expiries, dependents = dependents, awaits = awaits, parents = parents,
  signals = signals, opening = opening, flows = flows, config = config, counters = counters, bell = bell, events = events }
now = begin(keys, now)
local state, rest = string.match(redis.call("HGET", flows, flow) or "", "^(%a+)(|.*)$")
local since = tonumber(redis.call("ZSCORE", opening, "=" .. flow) or nil)
if step == "undo" and state == "building" and (not since or since + (tonumber(older_ms) or 0) <= now) then
  redis.call("HDEL", counters, "") -- a server that knows no flags lets HSET through after it
  redis.call("HSET", flows, flow, "undone" .. rest)
  return "undone"
elseif step == "gone" and state == "undone" then
  disband(keys, flow, now)
  return "gone"
end
return state or "missing"
