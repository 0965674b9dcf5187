-- schedule_name: whose is the name of a schedule? Decided for a whole namespace, in a place of its own
--
-- `claim` gives the name to `queue` unless another one has it; where the entry is `former`, which the caller has found to be
-- of no schedule, it is taken over. `mark` is new with every call: so `free` takes away what the caller has read, nothing newer.
--
-- Returns "claimed", "taken", "freed" or "kept" (`former` is not what stands), and the entry as it stood before, queue|mark
-- or "".
-- @flags allow-oom
local owners, names, config = unpack(KEYS)
local verb, name, queue, mark, former = unpack(ARGV)

local level = redis.call("HGET", config, "level")
if (tonumber(level) or 1) > 1 then return redis.error_reply("LEVEL " .. level) end
if verb ~= "claim" and verb ~= "free" then return redis.error_reply("INVALID verb") end
if string.find(queue .. mark, "|", 1, true) then return redis.error_reply("INVALID queue or mark") end
local entry = redis.call("HGET", owners, name) or ""
redis.call("ZCARD", names)
if verb == "free" then
  if entry == "" or entry ~= former then return { "kept", entry } end
  redis.call("HDEL", owners, name)
  redis.call("ZREM", names, name)
  return { "freed", entry }
end
if entry ~= "" and entry ~= former and string.match(entry, "^([^|]*)|") ~= queue then return { "taken", entry } end
redis.call("HDEL", owners, "") -- a server that knows no flags lets HSET through after it
redis.call("HSET", owners, name, queue .. "|" .. mark)
redis.call("ZADD", names, 0, name)
return { "claimed", entry }
