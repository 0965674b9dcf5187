-- Leaves word of what became of jobs for those that wait for them: one entry for each that has dependents, however many they
-- are; with the results of those that succeeded, up to 64 KiB each, so that their own retention does not matter, and with the
-- jobs that each has `added`. The caller has read every key, so that nothing here can fail.
local function signal(keys, ids, state, now, results, added)
  if redis.call("ZCARD", keys.dependents) == 0 then return end
  local order, entries, words = tonumber(redis.call("HGET", keys.counters, "signal") or nil) or 0, {}, {}
  for i, id in ipairs(ids) do
    if #redis.call("ZRANGEBYLEX", keys.dependents, "[" .. id .. " ", "(" .. id .. "!", "LIMIT", 0, 1) > 0 then
      order = math.max(order + 1, now * 1000)
      local result = results and results[i] or ""
      if #result > 65536 then result = "" end
      local at = string.format("%.0f", order)
      entries[#entries + 1], entries[#entries + 2] = at, id
      words[#words + 1], words[#words + 2] = id .. ":signal", at .. "|" .. state .. "||" .. (added or "") .. "\n" .. result
    end
  end
  if #entries == 0 then return end
  redis.call("ZADD", keys.signals, unpack(entries))
  redis.call("HSET", keys.notes, unpack(words))
  redis.call("HSET", keys.counters, "signal", string.format("%.0f", order))
  -- Whoever is idle hears of it with the claim that this wakes.
  if redis.call("LLEN", keys.bell) == 0 then redis.call("RPUSH", keys.bell, string.format("%.0f", now)) end
end
