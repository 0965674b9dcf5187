-- schedule_put: a schedule as it is from now on, new or changed; no job moves
--
-- `expect` is the version that the caller has seen, 0 for none, "" for whatever stands. `record` is what is kept of it, without
-- the version and the time that come first, `payload` that of its jobs ("" for {}). `next` is its next slot (ms), "" where
-- there is none; with `keep` a slot that stands already stays. One that is paused, has ended, or had as many runs as it may,
-- has none.
--
-- Returns "put" or "changed" (`expect` is not what stands), the version that stands now (0 for none), 1 when the queue is new
-- (register it), and its next slot or "".
-- @flags
-- @include lib/clock
-- @include lib/schedule_of
-- @include lib/schedule_text
local schedules, fires, config = unpack(KEYS)
local now, name, expect, next, keep, record, payload = unpack(ARGV)

local level, created = unpack(redis.call("HMGET", config, "level", "created"))
if (tonumber(level) or 1) > 1 then return redis.error_reply("LEVEL " .. level) end
if #name > 64 or not string.find(name, "^%w[%w._-]*$") then return redis.error_reply("INVALID name") end
local first = tonumber(next)
if next ~= "" and not (first and first >= 0 and first <= 9007199254740991 and first % 1 == 0) then
  return redis.error_reply("INVALID next")
end
if not string.find(record, "^1?|%d*|[^|\n]*|[^|\n]*|[^|\n]*|[^|\n]*|[^|\n]*|[^|\n]*|[^|\n]*\n[^\n]*\n[^\n]*$") then
  return redis.error_reply("INVALID record")
end
now = clock(now)
local its = schedule_of(schedules, fires, name)
local version = its and its.version or 0
if expect ~= "" and tonumber(expect) ~= version then return { "changed", string.format("%.0f", version), 0, "" } end

-- Never given twice, also when one of this name has gone: who has read the former one finds another.
version = math.max(version + 1, now)
local slot = keep == "1" and its and its.slot or first
its = its or { runs = 0, skipped = 0, last = "", open = {}, lines = {} }
local paused, most = string.match(record, "^(%d?)|(%d*)|")
local over = tonumber(most) and its.runs >= tonumber(most)
if over or paused == "1" then slot = nil end
its.ended = over or paused ~= "1" and not slot
redis.call("HSET", schedules, name, string.format("%.0f|%.0f|", version, now) .. record, ":" .. name, schedule_text(its))
if payload == "" then
  redis.call("HDEL", schedules, "=" .. name)
else
  redis.call("HSET", schedules, "=" .. name, payload)
end
if slot then
  redis.call("ZADD", fires, string.format("%.0f", slot), name)
else
  redis.call("ZREM", fires, name)
end
if not created then redis.call("HSET", config, "created", string.format("%.0f", now)) end
return { "put", string.format("%.0f", version), created and 0 or 1, slot and string.format("%.0f", slot) or "" }
