-- flow_put: (new) -> building; notes down a flow, a page of its jobs a call
--
-- A flow is there, for all to see, when flow_open has opened it; until then each of its jobs waits for that too. `flow` is
-- its id, `header` what is to be known of it, `total` the number of its jobs, `page` (0 first) the number of this one and
-- `nodes` its text, as the caller reads it again; each item is one job of the page (queue:key). Again for the same page
-- changes nothing.
--
-- Returns "building", or the state of a flow of this id that is further, or "conflict" when its header or total is another.
-- @flags
-- @include lib/refusal
-- @include lib/begin
local awaits, dependents, opening, flows, config, counters, bell, events = unpack(KEYS)
local now, flow, header, total, page, nodes, count = unpack(ARGV) -- then `count` times: id

local level, created = unpack(redis.call("HMGET", config, "level", "created"))
local refused = refusal(level, count, 7, 1)
if refused then return refused end
if #flow > 128 or not string.find(flow, "^[%w._-]+$") then return redis.error_reply("INVALID flow") end
if string.find(header, "\n") then return redis.error_reply("INVALID header") end
local of, nth = tonumber(total), tonumber(page)
if not (of and of >= 1 and of <= 100000 and of % 1 == 0) then return redis.error_reply("INVALID total") end
if not (nth and nth >= 0 and nth <= 100000 and nth % 1 == 0) then return redis.error_reply("INVALID page") end
now = begin({ awaits = awaits, dependents = dependents, opening = opening, flows = flows, config = config,
  counters = counters, bell = bell, events = events }, now)

local waits, gated = {}, {}
for i = 1, tonumber(count) do
  local id = item(7, 1, i)
  if #id > 200 or not string.find(id, "^%w[%w._~-]*:[%w._-]+$") then return redis.error_reply("INVALID id of item " .. i) end
  waits[#waits + 1], waits[#waits + 2] = 0, "=" .. flow .. " ?" .. id
  gated[#gated + 1], gated[#gated + 2] = 0, "=" .. flow .. " " .. id
end
local standing = redis.call("HGET", flows, flow)
if standing then
  local state, its, text = string.match(standing, "^(%a+)|%d*|%d*|%d*|(%d+)|%d+\n(.*)$")
  if its ~= string.format("%.0f", of) or text ~= header then return { "conflict", 0 } end
  if state ~= "building" then return { state, 0 } end
end

if not standing then
  redis.call("HSET", flows, flow, string.format("building||||%.0f|%.0f\n", of, now) .. header)
  redis.call("ZADD", opening, string.format("%.0f", now), "=" .. flow)
end
redis.call("HSET", flows, flow .. " " .. string.format("%06.0f", nth), nodes)
redis.call("ZADD", awaits, unpack(waits))
redis.call("ZADD", dependents, unpack(gated))
if not created then redis.call("HSET", config, "created", string.format("%.0f", now)) end
return { "building", created and 0 or 1 }
