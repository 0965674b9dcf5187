-- census: read only, a queue at a glance
--
-- Returns the time in ms, 1 when the queue exists, the number of jobs in scheduled, blocked, ready, running,
-- retrying, succeeded, cancelled, dead, when the first in line became ready (ms, "" for none), then the number
-- of fields of `config` and its fields and values, and the fields and values of `counters`.
-- @flags no-writes
-- @include lib/clock
-- @include lib/place_of
local jobs, scheduled, blocked, ready, running, retrying, succeeded, cancelled, dead, config, counters = unpack(KEYS)
local now = unpack(ARGV)

local reply = { string.format("%.0f", clock(now)), redis.call("HEXISTS", config, "created") }
for _, set in ipairs({ scheduled, blocked, ready, running, retrying, succeeded, cancelled, dead }) do
  reply[#reply + 1] = redis.call("ZCARD", set)
end
local first = redis.call("ZRANGE", ready, 0, 0, "WITHSCORES")
local since = ""
if first[1] then
  local record = redis.call("HGET", jobs, first[1]) or ""
  local created, rank = string.match(record, "^[^|\n]*|[^|\n]*|[^|\n]*|(%d+)|(%-?%d*)|")
  local step = tonumber(redis.call("HGET", config, "step")) or 60000000
  local place = place_of(tonumber(first[2]), tonumber(rank) or 0, step, tonumber(created) or 0, select(2, clock(now)))
  since = string.format("%.0f", math.floor(place / 1000))
end
reply[#reply + 1] = since
local settings = redis.call("HGETALL", config)
reply[#reply + 1] = #settings / 2
for _, text in ipairs(settings) do reply[#reply + 1] = text end
for _, text in ipairs(redis.call("HGETALL", counters)) do reply[#reply + 1] = text end
return reply
