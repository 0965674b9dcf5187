-- @include lib/ring
-- @include lib/int
-- @include lib/digits
-- @include lib/report
-- @include lib/to_ready
-- Makes ready what is due in scheduled and retrying, at most `limit` jobs and 4 MiB of records; its place is its
-- due time. Answers their ids, and when the next one is due (ms). The caller has read every key, so that nothing
-- here can fail.
local function raise(keys, now, limit, step)
  local ids, list, soonest, bytes, write = {}, {}, math.huge, 0, digits()
  for _, state in ipairs({ "scheduled", "retrying" }) do
    local upto, moved = int(now * 1000 + 999), {}
    local due = redis.call("ZRANGEBYSCORE", keys[state], "-inf", upto, "WITHSCORES", "LIMIT", 0, limit)
    for i = 1, #due, 2 do
      if #ids >= limit or bytes > 4194304 then break end
      local record = redis.call("HGET", keys.jobs, due[i]) or ""
      local rank = tonumber(string.match(record, "^[^|\n]*|[^|\n]*|[^|\n]*|[^|\n]*|(%-?%d*)|")) or 0
      bytes = bytes + #record
      ids[#ids + 1], moved[#moved + 1] = due[i], due[i]
      list[#list + 1] = { id = due[i], score = write(tonumber(due[i + 1]) - rank * step), record = record }
    end
    if #moved > 0 then redis.call("ZREM", keys[state], unpack(moved)) end
    local next = redis.call("ZRANGE", keys[state], 0, 0, "WITHSCORES")
    if next[2] then soonest = math.min(soonest, math.floor(tonumber(next[2]) / 1000)) end
  end
  to_ready(keys, list)
  return ids, soonest
end
