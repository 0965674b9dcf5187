-- schedule_drop: schedules -> gone; their jobs stay
--
-- `version` is the one that the caller has seen, "" for whatever stands.
--
-- Returns for each "gone", "missing", or "changed" when another version stands.
-- @flags allow-oom
-- @include lib/refusal
-- @include lib/schedule_of
local schedules, fires, config = unpack(KEYS)
local count = unpack(ARGV) -- then `count` times: name, version

local refused = refusal(redis.call("HGET", config, "level"), count, 1, 2)
if refused then return refused end
local reply = {}
for i = 1, tonumber(count) do
  local name, version = item(1, 2, i)
  local its = schedule_of(schedules, fires, name)
  if not its then
    reply[i] = "missing"
  elseif version ~= "" and tonumber(version) ~= its.version then
    reply[i] = "changed"
  else
    reply[i] = "gone"
    redis.call("HDEL", schedules, name, ":" .. name, "=" .. name)
    redis.call("ZREM", fires, name)
  end
end
return reply
