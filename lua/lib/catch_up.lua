-- @include lib/line_up
-- @include lib/slots_of
-- What a queue held when it got lanes: files its ready jobs, and notes down who runs, a page a call. Answers whether all
-- is filed, and whether all is counted: until then no slot is known to be free. The caller has read every key.
local function catch_up(keys)
  local filed, counted = unpack(redis.call("HMGET", keys.counters, "filed", "counted"))
  if keys.counting and counted ~= "all" then
    local page, members = redis.call("HSCAN", keys.leases, counted or "0", "COUNT", 100), {}
    for i = 1, #page[2], 2 do
      slots_of(keys, page[2][i], page[2][i + 1], members)
    end
    local scored = {}
    for i, member in ipairs(members) do scored[2 * i - 1], scored[2 * i] = 0, member end
    for from = 1, #scored, 1000 do
      redis.call("ZADD", keys.slots, unpack(scored, from, math.min(from + 999, #scored)))
    end
    counted = page[1] == "0" and "all" or page[1]
    redis.call("HSET", keys.counters, "counted", counted)
  end
  if filed ~= "all" then
    local score, id = string.match(filed or "", "^(%S+) (.+)$")
    -- The last one of the page before may have left, or have another place by now.
    local stays = id and tonumber(redis.call("ZSCORE", keys.ready, id) or nil) == tonumber(score)
    local rank = stays and redis.call("ZRANK", keys.ready, id)
    local from = rank and rank + 1 or score and redis.call("ZCOUNT", keys.ready, "-inf", "(" .. score) or 0
    local page, list, bytes = redis.call("ZRANGE", keys.ready, from, from + 499, "WITHSCORES"), {}, 0
    for i = 1, #page, 2 do
      if bytes > 4194304 then break end
      local record = redis.call("HGET", keys.jobs, page[i]) or ""
      bytes = bytes + #record
      list[#list + 1] = { id = page[i], score = page[i + 1], record = string.match(record, "^[^\n]*") }
    end
    line_up(keys, list)
    local last = list[#list]
    filed = #list < 500 and 2 * #list == #page and "all" or last.score .. " " .. last.id
    redis.call("HSET", keys.counters, "filed", filed)
  end
  return filed == "all", not keys.counting or counted == "all"
end
