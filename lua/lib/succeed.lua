-- @include lib/settled
-- @include lib/excess
-- @include lib/trim
-- @include lib/free_slots
-- @include lib/digits
-- @include lib/vanish
-- @include lib/apart
-- Runs that did their work: `each(i)` gives id, token and result of the i-th. Reads and checks everything: answers the reply of
-- ack, and the function that then writes (nil where there is nothing to write; it is given what each of them has added, which
-- the jobs that wait for it wait for as well). `keys` are all those of ack.
local function succeed(keys, now, worker, count, each)
  local running, leases, succeeded, results, expiries = keys.running, keys.leases, keys.succeeded, keys.results, keys.expiries
  local counters, bell, events = keys.counters, keys.bell, keys.events
  local in_lanes, counting, breakers, age, most, bytes = unpack(redis.call("HMGET", keys.config, "lanes", "slots", "breakers",
    "keep_succeeded_age", "keep_succeeded_count", "keep_succeeded_bytes"))
  local ids = {}
  for i = 1, count do ids[i] = each(i) end
  local held = redis.call("HMGET", leases, unpack(ids))
  redis.call("ZCARD", running)
  redis.call("HLEN", results)
  redis.call("HLEN", counters)
  redis.call("XLEN", events)
  local followed = redis.call("ZCARD", keys.dependents) > 0
  if followed then
    redis.call("ZCARD", keys.signals)
    redis.call("HLEN", keys.notes)
    redis.call("LLEN", bell)
  end

  if laned(keys, in_lanes, counting, breakers) then keys.rung = redis.call("LLEN", bell) end
  local reply, mine, tokens, scores, records, own = {}, {}, {}, {}, {}, {}
  local gone, runs, said, bodies = {}, {}, {}, {}
  local ended, timed, weight, gross, done, write = {}, {}, 0, 0, {}, digits()
  for i, id in ipairs(ids) do
    local _, token, result = each(i)
    local its, by, started, attempt, flags, size =
      string.match(held[i] or "", "^(%d+)|([^|]*)|(%d+)|%d+|[^|]*|(%d+)|([^|]*)|(%d+)|")
    if its == token and not done[id] then
      done[id] = true
      local run = attempt .. "|0|0|" .. token .. "|ack|succeeded|" .. started .. "|" .. by .. "||0|0"
      local score, kept = now, nil
      if flags ~= "" then
        kept = tonumber(string.match(flags, "^r(%d+)"))
        if kept == 0 then
          gone[#gone + 1], runs[#runs + 1] = id, run
        elseif kept then
          score = -now
          own[#own + 1] = string.format("%.0f", now + kept)
          own[#own + 1] = id
        elseif string.find(flags, " [dx]:") then
          timed[#timed + 1] = id
        end
      end
      mine[#mine + 1], tokens[#tokens + 1], said[#said + 1] = id, token, result
      if keys.laned then ended[#ended + 1] = { id = id, flags = flags, good = true } end
      if kept ~= 0 then
        local record, body = apart(run .. "\n" .. result, 1)
        if body then bodies[#bodies + 1], bodies[#bodies + 2] = id .. ":result", body end
        scores[#scores + 1] = write(score)
        scores[#scores + 1] = id
        records[#records + 1] = id
        records[#records + 1] = record
        if score > 0 then weight = weight + tonumber(size) + #run + 1 + #result end
      end
      gross = gross + tonumber(size)
      reply[i] = "succeeded"
    else
      reply[i] = its == token and "succeeded" or settled(keys, id, token, "ack")
    end
  end
  if #mine == 0 then return reply, nil end
  local beyond = excess(keys, "succeeded", { age, most, bytes }, now, #mine - #gone - #own / 2, weight)
  if #bodies > 0 then redis.call("HLEN", keys.bodies) end
  if beyond or #own > 0 or #timed > 0 or #gone > 0 then
    for _, key in ipairs({ expiries, keys.logs, keys.awaits, keys.opening }) do redis.call("ZCARD", key) end
    for _, key in ipairs({ keys.jobs, keys.bodies, keys.attempts,
      keys.known, keys.notes, keys.parents }) do redis.call("HLEN", key) end
  end

  return reply, function(added)
    redis.call("ZREM", running, unpack(mine))
    redis.call("HDEL", leases, unpack(mine))
    if #scores > 0 then
      redis.call("ZADD", succeeded, unpack(scores))
      redis.call("HSET", results, unpack(records))
    end
    if #bodies > 0 then redis.call("HSET", keys.bodies, unpack(bodies)) end
    if #own > 0 then redis.call("ZADD", expiries, unpack(own)) end
    if #timed > 0 then redis.call("ZREM", expiries, unpack(timed)) end
    tally(counters, { ack = #mine, bytes_succeeded = weight, bytes_unfinished = -gross })
    if followed then signal(keys, mine, "succeeded", now, said, added) end
    if #gone > 0 then vanish(keys, gone, runs, now) end
    if beyond then trim(keys, "succeeded", beyond, now, math.max(100, #mine)) end
    if free_slots(keys, ended, now) and keys.rung == 0 then redis.call("RPUSH", bell, string.format("%.0f", now)) end
    report(events, "ack", worker, now, mine, tokens)
  end
end
