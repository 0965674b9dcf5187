-- schedule_due: read only, the schedules whose next slot has come, the oldest first
--
-- At most `limit` (1..500) of them, without the first `skip` ("": none). A slot stays due until schedule_fire has moved it.
--
-- Returns the time in ms, then for each: its name, the slot (ms), its record ("" where it has none), the first line of its past.
-- @flags no-writes
-- @include lib/clock
local schedules, fires = unpack(KEYS)
local now, limit, skip = unpack(ARGV)

limit = limit == "" and 100 or tonumber(limit)
if not limit or limit < 1 or limit > 500 or limit % 1 ~= 0 then return redis.error_reply("BATCH limit is 1..500") end
skip = (not skip or skip == "") and 0 or tonumber(skip)
if not skip or skip < 0 or skip > 1000000 or skip % 1 ~= 0 then return redis.error_reply("INVALID skip") end
now = clock(now)
local due = redis.call("ZRANGEBYSCORE", fires, "-inf", string.format("%.0f", now), "WITHSCORES", "LIMIT", skip, limit)
local reply = { string.format("%.0f", now) }
for i = 1, #due, 2 do
  local record, text = unpack(redis.call("HMGET", schedules, due[i], ":" .. due[i]))
  local n = #reply
  reply[n + 1], reply[n + 2] = due[i], string.format("%.0f", tonumber(due[i + 1]))
  reply[n + 3], reply[n + 4] = record or "", string.match(text or "", "^[^\n]*")
end
return reply
