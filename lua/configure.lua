-- configure: the queue's configuration, a type's or a group's policy, as it is from now on
--
-- Sets fields of `config` ("" lifts one), or with `name` that field of `part`, the record of which is `record` ("" takes
-- it away). In `types`, which is meant without a part, that is a type as it was set, or with a colon before it as a worker's
-- code declared it; in `groups`, a group. `expect` is the version that the caller has read ("": any): with another one
-- nothing is written, but what stands already as it is asked for is done (a repeated call). The first limit makes a queue
-- of `lanes`. What was paused or limited and is no more, or otherwise, is looked at again, and rings the bell.
--
-- Returns "done" or "changed", the version now, and 1 when the queue is new (register it).
-- @flags allow-oom
-- @include lib/clock
-- @include lib/refusal
-- @include lib/report
local types, lanes, heads, turns, groups, waits, meters, config, counters, bell, events = unpack(KEYS)
local now, part, name, record, expect, count = unpack(ARGV) -- then `count` times: field, value

local level, created, version, paused, in_lanes, counting = unpack(redis.call("HMGET", config, "level", "created", "version", "paused", "lanes", "slots"))
local fields = tonumber(count) or 0
version = tonumber(version) or 0
local refused = refusal(level, count, 6, 2, "")
if refused then return refused end
now = clock(now)
redis.call("HLEN", types)
redis.call("HLEN", groups)
redis.call("HLEN", counters)
redis.call("HLEN", meters)
for _, key in ipairs({ lanes, heads, turns, waits }) do redis.call("ZCARD", key) end
redis.call("LLEN", bell)
redis.call("XLEN", events)

-- Scripts reckon with all of these: nothing may stand there that is no number, or out of its range.
local function whole(text, least, most)
  local number = string.find(text, "^%d+$") and tonumber(text)
  return number and number >= least and number <= most
end

local function is_rate(limit, per, burst)
  return whole(limit or "", 1, 1000000000) and whole(per, 1, 86400000) and whole(burst, 0, 1000000)
    and tonumber(limit) <= 1000 * tonumber(per)
end

-- The four fields that records of types and groups have of these limits; "-" lifts what a weaker word says.
local function are_limits(slots, limit, per, burst)
  if not (slots == "" or slots == "-" or whole(slots, 1, 1000000)) then return false end
  return per .. burst == "" and (limit == "" or limit == "-") or is_rate(limit, per, burst)
end

local function is_breaker(text)
  local percent, window, least, open, probes = string.match(text, "^(%d+);(%d+);(%d+);(%d+);(%d+)$")
  return percent and whole(percent, 1, 100) and whole(window, 1000, 86400000) and whole(least, 1, 1000000)
    and whole(open, 1000, 86400000) and whole(probes, 1, 1000)
end

local function is_type(line)
  local timeout, rest = string.match(line, "^(%d*)|(.*)$")
  if not timeout or timeout ~= "" and not whole(timeout, 1, 604800000) then return false end
  if rest == "" then return true end
  local slots, limit, per, burst, breaker = string.match(rest, "^([^|]*)|([^|]*)|([^|]*)|([^|]*)|1?|([^|]*)$")
  return slots and are_limits(slots, limit, per, burst) and (breaker == "" or breaker == "-" or is_breaker(breaker))
end

local function is_group(line)
  local weight, slots, limit, per, burst = string.match(line, "^(%d*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|1?$")
  return weight and (weight == "" or whole(weight, 1, 100)) and are_limits(slots, limit, per, burst)
end

-- What a type's record limits: its first line without the timeout.
local function limits_of(text) return string.match(text, "^%d*|([^\n]*)\n") or "" end

local grouped, key = part == "groups", types
if part ~= "" and part ~= "types" and not grouped then return redis.error_reply("INVALID part") end
if grouped then key = groups end
local named, scopes, limits, slots, breaker = name ~= "", {}, false, false, nil
if grouped and not (#name <= 128 and string.find(name, "^[%w._-]+$")) or not grouped and named
  and not (#name <= 65 and string.find(name, "^:?%w[%w._-]*$")) then
  return redis.error_reply("INVALID name")
end
local standing = named and redis.call("HGET", key, name) or ""
if named and record ~= "" then
  local line = string.match(record, "^([^\n]*)\n")
  if grouped and not is_group(record) or not grouped and not (line and is_type(line)) then
    return redis.error_reply("INVALID record")
  end
  limits = grouped or string.find(limits_of(record), "[^|-]")
  breaker = not grouped and string.find(line, ";", 1, true)
  slots = breaker or string.find(line or record, "^%d*|%d")
end
if grouped and record ~= standing then
  scopes[1] = "g" .. name
elseif named and limits_of(record) ~= limits_of(standing) then
  scopes[1] = "t" .. (string.gsub(name, "^:", ""))
end
local new, set, lifted = named and record ~= standing, {}, {}
for i = 1, fields do
  local field, value = item(6, 2, i)
  if field == "" or field == "level" or field == "created" or field == "version" or field == "lanes" or field == "slots"
    or field == "breakers" then
    return redis.error_reply("INVALID field of item " .. i)
  end
  local good, scope = true, nil
  if field == "draining" then
    good = value == "1"
  elseif field == "step" then
    good = whole(value, 0, 60000000000000)
  elseif field == "max_length" or field == "max_bytes" or string.find(field, "^keep_") then
    good = whole(value, 0, 9007199254740991)
  elseif field == "concurrency" or field == "group_concurrency" then
    good, scope = whole(value, 1, 1000000), field == "concurrency" and "q" or "*"
  elseif field == "rate" or field == "group_rate" then
    good, scope = is_rate(string.match(value, "^(%d+)|(%d+)|(%d+)$")), field == "rate" and "q" or "*"
  end
  if value ~= "" and not good then return redis.error_reply("INVALID value of item " .. i) end
  if value ~= (redis.call("HGET", config, field) or "") then
    new = true
    scopes[#scopes + 1] = scope
  end
  if value == "" then
    lifted[#lifted + 1] = field
  else
    limits, slots = limits or scope, slots or field == "group_concurrency"
    set[#set + 1] = field
    set[#set + 1] = value
  end
end
if not new and (created or named) then return { "done", string.format("%.0f", version), 0 } end
if expect ~= "" and tonumber(expect) ~= version then return { "changed", string.format("%.0f", version), 0 } end

redis.call("HDEL", config, "", unpack(lifted))
if named and record == "" then
  redis.call("HDEL", key, name)
elseif named then
  redis.call("HSET", key, name, record)
end
if #set > 0 then redis.call("HSET", config, unpack(set)) end
version = version + 1
redis.call("HSET", config, "version", string.format("%.0f", version))
if limits and in_lanes ~= "2" then
  -- @include lib/by_limits
  by_limits({ lanes = lanes, heads = heads, turns = turns, config = config, counters = counters })
end
if breaker then
  redis.call("HSET", config, "breakers", "1")
elseif scopes[1] and not grouped and string.find(limits_of(standing), ";", 1, true) then
  -- One that is set again later begins anew.
  redis.call("HDEL", meters, "breaker " .. string.sub(scopes[1], 2))
end
-- Who runs is counted from now on, those who run already by the claims to come.
if slots and not counting then
  redis.call("HSET", config, "slots", "1")
  redis.call("HDEL", counters, "counted")
end
if not created then redis.call("HSET", config, "created", string.format("%.0f", now)) end
for _, scope in ipairs(scopes) do
  -- Whatever all groups share is one mark: there may be any number of them.
  if scope == "*" then
    redis.call("ZADD", waits, 0, scope)
  else
    redis.call("ZADD", waits, "XX", 0, scope)
  end
end
local resumed = paused and redis.call("HEXISTS", config, "paused") == 0
if (resumed or #scopes > 0) and redis.call("LLEN", bell) == 0 then
  redis.call("RPUSH", bell, string.format("%.0f", now))
end
report(events, "configure", "", now, { name })
return { "done", string.format("%.0f", version), created and 0 or 1 }
