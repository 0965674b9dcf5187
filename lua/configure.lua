-- configure: the queue's configuration, or a type's policy, as it is from now on
--
-- Sets fields of `config` ("" lifts one), or with `name` that field of `types`: a type as it was set, or with a
-- colon before it as a worker's code declared it. `expect` is the version that the caller has read ("": any):
-- with another one nothing is written, but what stands already as it is asked for is done (a repeated call).
-- What was paused and is no more rings the bell.
--
-- Returns "done" or "changed", the version now, and 1 when the queue is new (register it).
-- @flags allow-oom
-- @include lib/clock
-- @include lib/refusal
-- @include lib/report
local types, config, bell, events = unpack(KEYS)
local now, name, record, expect, count = unpack(ARGV) -- then `count` times: field, value

local level, created, version, paused = unpack(redis.call("HMGET", config, "level", "created", "version", "paused"))
local fields = tonumber(count) or 0
local refused = refusal(level, count, 5, 2, "")
if refused then return refused end
now = clock(now)
redis.call("HLEN", types)
redis.call("LLEN", bell)
redis.call("XLEN", events)
local standing = redis.call("HGET", types, name)
version = tonumber(version) or 0
if #name > 65 or name ~= "" and not string.find(name, "^:?%w[%w._-]*$") then return redis.error_reply("INVALID name") end
local timeout = string.match(record, "^(%d*)|[^\n]*\n")
local within = timeout == "" or timeout and tonumber(timeout) >= 1 and tonumber(timeout) <= 604800000
if name ~= "" and record ~= "" and not within then
  return redis.error_reply("INVALID record")
end
local new, set, lifted = name ~= "" and record ~= (standing or ""), {}, {}
for i = 1, fields do
  local field, value = item(5, 2, i)
  if field == "" or field == "level" or field == "created" or field == "version" then
    return redis.error_reply("INVALID field of item " .. i)
  end
  -- Scripts reckon with these: nothing but a whole number may stand there.
  local most = field == "step" and 60000000000000 or (field == "max_length" or string.find(field, "^keep_")) and 9007199254740991
  if most and value ~= "" and not (string.find(value, "^%d+$") and tonumber(value) <= most) then
    return redis.error_reply("INVALID value of item " .. i)
  end
  if value ~= (redis.call("HGET", config, field) or "") then new = true end
  if value == "" then
    lifted[#lifted + 1] = field
  else
    set[#set + 1] = field
    set[#set + 1] = value
  end
end
if not new and (created or name ~= "") then return { "done", string.format("%.0f", version), 0 } end
if expect ~= "" and tonumber(expect) ~= version then return { "changed", string.format("%.0f", version), 0 } end

redis.call("HDEL", config, "", unpack(lifted))
if name ~= "" and record == "" then
  redis.call("HDEL", types, name)
elseif name ~= "" then
  redis.call("HSET", types, name, record)
end
if #set > 0 then redis.call("HSET", config, unpack(set)) end
version = version + 1
redis.call("HSET", config, "version", string.format("%.0f", version))
if not created then redis.call("HSET", config, "created", string.format("%.0f", now)) end
if paused and redis.call("HEXISTS", config, "paused") == 0 and redis.call("LLEN", bell) == 0 then
  redis.call("RPUSH", bell, string.format("%.0f", now))
end
report(events, "configure", "", now, { name })
return { "done", string.format("%.0f", version), created and 0 or 1 }
