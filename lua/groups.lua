-- groups: read only, dead jobs by what they died of
--
-- A page of at most `limit` (1..500) groups of jobs that died alike, those that grew last first; `after` is what the
-- last page answered as its cursor.
--
-- Returns the cursor ("" at the end), then for each group: its fingerprint, how many jobs, when the first and the last of
-- them died (ms), the type, and the last error of the last one (a line of JSON; of a damaged record, which ran no more,
-- one that says so).
-- @flags no-writes
local jobs, dead_index, dead_groups, attempts = unpack(KEYS)
local after, limit = unpack(ARGV)

limit = limit == "" and 100 or tonumber(limit)
if not (limit and limit >= 1 and limit <= 500) then return redis.error_reply("BATCH limit is 1..500") end
local at, last = string.match(after, "^(%d+)|(%x+)$")
if after ~= "" and not at then return redis.error_reply("INVALID cursor") end

-- More than so many do not grow in one millisecond.
local reply, offset, bytes, shown, grown = { "" }, 0, 0, 0, 0
while offset < 100000 do
  local page = redis.call("ZREVRANGEBYSCORE", dead_groups, at or "+inf", "-inf", "WITHSCORES", "LIMIT", offset, 100)
  offset = offset + 100
  for i = 1, #page, 2 do
    local alike, grew = page[i], page[i + 1]
    local from, to = "[" .. alike, "(" .. alike .. ":"
    -- Of a tie, the groups before the cursor's were shown.
    local newest = not (at and tonumber(grew) == tonumber(at) and alike >= last)
      and redis.call("ZREVRANGEBYLEX", dead_index, to, from, "LIMIT", 0, 1)[1]
    if newest and (shown == limit or bytes > 4194304) then
      reply[1] = string.format("%.0f|%s", grown, reply[#reply - 5])
      return reply
    elseif newest then
      local oldest = redis.call("ZRANGEBYLEX", dead_index, from, to, "LIMIT", 0, 1)[1]
      local id, n = string.sub(newest, 32), #reply
      reply[n + 1], reply[n + 2] = alike, redis.call("ZLEXCOUNT", dead_index, from, to)
      reply[n + 3], reply[n + 4] = string.sub(oldest, 17, 31), string.sub(newest, 17, 31)
      reply[n + 5] = string.match(redis.call("HGET", jobs, id) or "", "^([^|\n]*)|") or ""
      reply[n + 6] = alike == "0000000000000000" and '{"kind":"corrupt","message":"the record is damaged"}'
        or string.match(redis.call("HGET", attempts, id) or "", "\n([^\n]*)$") or ""
      bytes, shown, grown = bytes + #reply[n + 6], shown + 1, tonumber(grew)
    end
  end
  if #page < 200 then return reply end
end
return reply
