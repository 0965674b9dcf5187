-- @include lib/announce
-- @include lib/line_up
-- @include lib/conflict
-- @include lib/supersede
-- @include lib/digits
-- @include lib/apart
-- Takes in new jobs, `each(i)` gives the fields of the i-th as lua/enqueue.lua names them. Reads and checks everything: answers
-- an error reply, or the reply of enqueue and the function that then writes. `keys` are all those of enqueue. With `inside` the
-- jobs belong to a running job of the queue: a draining queue accepts them too, or that job could never end.
local function take_in(keys, now, micros, count, each, inside)
  local jobs, ready, scheduled, known, expiries = keys.jobs, keys.ready, keys.scheduled, keys.known, keys.expiries
  local counters, config, events, bell = keys.counters, keys.config, keys.events, keys.bell
  local created, step, longest, largest, in_lanes, draining =
    unpack(redis.call("HMGET", config, "created", "step", "max_length", "max_bytes", "lanes", "draining"))
  step = tonumber(step) or 60000000
  local place, due_ms, due_score, total, unfinished =
    unpack(redis.call("HMGET", counters, "place", "due_ms", "due_score", "enqueue", "bytes_unfinished"))
  place, due_ms, due_score = tonumber(place) or 0, tonumber(due_ms), tonumber(due_score)
  local room, weight = math.huge, 0
  local stood = tonumber(unfinished) or 0
  largest = tonumber(largest) or math.huge
  if longest then room = tonumber(longest) - redis.call("ZCARD", ready) - redis.call("ZCARD", scheduled) end
  if draining and not inside then room = 0 end
  redis.call("ZCARD", ready)
  redis.call("XLEN", events)
  keys.rung = redis.call("LLEN", bell)

  local ids = {}
  for i = 1, count do ids[i] = each(i) end
  local standing = redis.call("HMGET", jobs, unpack(ids))
  local tombs = {}
  if redis.call("HLEN", known) > 0 then
    tombs = redis.call("HMGET", known, unpack(ids))
    redis.call("ZCARD", expiries)
  end

  -- A whole number within its bounds, `default` for "", nil for anything else.
  local function whole(text, least, most, default)
    if text == "" then return default end
    local number = tonumber(text)
    if number and number % 1 == 0 and number >= least and number <= most then return number end
    return nil
  end

  -- What stands in a record's flags of a job's rules, nil for a rule that is none; what is said of its unique key; and when it
  -- has no more time to start (ms); and whom it waits for, and who waits for it.
  local function flagged(rules)
    local flags, lock, over, ties = "", nil, nil, nil
    for rule in string.gmatch(rules, "%S+") do
      local name, value = string.match(rule, "^(%a+):(.+)$")
      if name == "group" and #value <= 128 and string.find(value, "^[%w._-]+$") then
        flags = flags .. " g:" .. value
      elseif name == "cost" and whole(value, 1, 1000) then
        if value ~= "1" then flags = flags .. " c:" .. string.format("%.0f", value) end
      elseif name == "unique" and not lock and #value <= 128 and string.find(value, "^[%w._-]+$") then
        flags, lock = flags .. " u:" .. value, { key = value, till = "" }
      elseif name == "call" and #value <= 32 and string.find(value, "^%w+$") then
        flags = flags .. " n:" .. value
      elseif lock and name == "for" and whole(value, 1, 315576000000) then
        lock.till = string.format("%.0f", now + tonumber(value))
      elseif lock and name == "until" and (value == "start" or value == "end") then
        lock.mode = string.sub(value, 1, 1)
      elseif lock and name == "conflict" and string.find(" return reject replace debounce ", " " .. value .. " ", 1, true) then
        lock.conflict = value
      elseif (name == "after" or name == "before") and #value <= 200 and string.find(value, "^%w[%w._~-]*:=?[%w._-]+$") then
        ties = ties or { after = {}, before = {}, failure = "cancel" }
        table.insert(ties[name], value)
      elseif ties and name == "failure" and string.find(" cancel continue wait failure ", " " .. value .. " ", 1, true) then
        ties.failure = value
      elseif ties and name == "linked" then
        ties.linked = true
      elseif name == "deadline" or name == "expires" then
        local span, time = string.match(value, "^%+(%d+)$"), whole(value, 0, 9007199254740991)
        if span then time = now + tonumber(span) end
        if not time then return nil end
        flags = flags .. (name == "deadline" and " d:" or " x:") .. string.format("%.0f", time)
        over = math.min(over or time, time)
      else
        return nil
      end
    end
    if ties and #ties.after > 0 then flags = flags .. " a:" .. ties.failure end
    return flags, lock, over, ties
  end

  local reply = { created and 0 or 1, string.format("%.0f", now) }
  local records, bodies, runnable, waiting, timed, fresh, seen, forgotten = {}, {}, {}, {}, {}, {}, {}, {}
  local tied, soonest, in_group, unique, write = {}, nil, nil, nil, digits()
  for i = 1, count do
    local id, kind, payload, priority, delay, run_at, timeout, retention, rules, fingerprint, crc, header = each(i)
    if #id > 128 or not string.find(id, "^[%w._-]+$") then return redis.error_reply("INVALID id of item " .. i) end
    if #kind > 64 or not string.find(kind, "^%w[%w._-]*$") then return redis.error_reply("INVALID type of item " .. i) end
    local rank = whole(priority, -100, 100, 0)
    local later = whole(delay, 0, 315576000000, 0)
    local at = whole(run_at, 0, 9000000000000, 0)
    local limit, kept = whole(timeout, 1, 604800000, ""), whole(retention, 0, 315576000000, "")
    if not rank then return redis.error_reply("INVALID priority of item " .. i) end
    if not later or not at or at > now + 315576000000 then return redis.error_reply("INVALID time of item " .. i) end
    if not limit or not kept then return redis.error_reply("INVALID timeout or retention of item " .. i) end
    local flags, lock, over, ties = "", nil, nil, nil
    if rules ~= "" then flags, lock, over, ties = flagged(rules) end
    if not flags then return redis.error_reply("INVALID rules of item " .. i) end
    if over and over > now + 315576000000 then return redis.error_reply("INVALID deadline of item " .. i) end
    if string.find(fingerprint .. crc, "[|\n]") or string.find(header, "\n") then
      return redis.error_reply("INVALID header of item " .. i)
    end
    if payload == "" then payload = "{}" end
    local due, blocked = math.max(at, now + later), ties and #ties.after > 0
    if blocked and due > now then flags = flags .. " w:" .. string.format("%.0f", due) end
    if kept ~= "" then flags = "r" .. string.format("%.0f", kept) .. flags end

    local made = table.concat({ kind, limit, flags, reply[2], rank ~= 0 and rank or "", fingerprint, crc }, "|")
      .. "\n" .. header .. "\n" .. payload
    local record = standing[i] or seen[id]
    local tomb = not record and tombs[i]
    -- One that holds a unique key is known until its expiry takes it.
    if tomb and tonumber(string.match(tomb, "^(%d+)|")) + 60000 <= now and not string.find(tomb, "^[^\n]*\n[^\n]* u:[^\n]*|") then
      forgotten[#forgotten + 1] = id
      tomb = nil
    end
    local held
    if lock and not record and not tomb and not (over and over <= now) then
      if not unique then
        unique = { holders = {}, entries = {}, changes = {}, changed = {} }
      end
      held, place = conflict(keys, unique, lock, { kind = kind, limit = limit, flags = flags, rank = rank, crc = crc,
        header = header, payload = payload, due = (delay ~= "" or run_at ~= "") and math.max(at, now + later) or nil,
        over = over, now = now, micros = micros, step = step, call = string.match(flags, " n:%w+") }, place)
    end
    if record or tomb then
      local head = record or string.match(tomb, "\n(.*)$")
      local its_type, its_flags, its_print = string.match(head, "^([^|]*)|[^|]*|([^|]*)|[^|]*|[^|]*|([^|]*)|")
      local call = string.match(flags, " n:%w+")
      local same = its_type == kind and its_print == fingerprint
      if same and fingerprint == "" and record then
        local former = string.match(record, "^[^\n]*\n[^\n]*\n(.*)$")
        if former == "" then former = redis.call("HGET", keys.bodies, id) end
        same = former == payload
      end
      local again = call and string.find((its_flags or "") .. " ", call .. " ", 1, true)
      reply[#reply + 1] = again and "again" or same and "exists" or "conflict"
      reply[#reply + 1] = ""
    elseif over and over <= now then
      reply[#reply + 1] = "past"
      reply[#reply + 1] = ""
    elseif held then
      reply[#reply + 1] = held.changed and "changed" or "held"
      reply[#reply + 1] = held.id
    elseif #fresh >= room or stood + weight > 0 and stood + weight + #made > largest then
      reply[#reply + 1] = "full"
      reply[#reply + 1] = ""
    else
      record = made
      weight = weight + #record
      seen[id] = record
      if lock then
        local mode = lock.mode or lock.till ~= "" and "t" or "e"
        unique.holders[lock.key] = id
        table.insert(unique.entries, "=" .. lock.key)
        table.insert(unique.entries, id .. "|" .. lock.till .. "|" .. mode)
      end
      fresh[#fresh + 1] = id
      in_group = in_group or string.find(flags, " g:", 1, true)
      if over then timed[#timed + 1], timed[#timed + 2] = string.format("%.0f", over), id end
      records[#records + 1] = id
      local head, body = apart(record, 2)
      if body then bodies[#bodies + 1], bodies[#bodies + 2] = id, body end
      records[#records + 1] = head
      if ties then tied[#tied + 1] = { id = id, after = ties.after, before = ties.before, linked = ties.linked } end
      if blocked then
        reply[#reply + 1] = "blocked"
        reply[#reply + 1] = ""
      elseif due <= now then
        place = math.max(place + 1, micros)
        runnable[#runnable + 1] = write(place - rank * step)
        runnable[#runnable + 1] = id
        reply[#reply + 1] = "ready"
        reply[#reply + 1] = ""
      else
        if due == due_ms and due_score then
          due_score = due_score + 1
        else
          local last = redis.call("ZREVRANGEBYSCORE", scheduled, due * 1000 + 999, due * 1000, "WITHSCORES", "LIMIT", 0, 1)
          due_ms, due_score = due, last[2] and tonumber(last[2]) + 1 or due * 1000
        end
        waiting[#waiting + 1] = string.format("%.0f", due_score)
        waiting[#waiting + 1] = id
        if not soonest or due < soonest then soonest = due end
        reply[#reply + 1] = "scheduled"
        reply[#reply + 1] = string.format("%.0f", due)
      end
    end
  end
  local function look()
    if #timed > 0 then redis.call("ZCARD", expiries) end
    if #bodies > 0 then redis.call("HLEN", keys.bodies) end
    if in_lanes or in_group then laned(keys, in_lanes or "1", false) end
    if #tied > 0 then
      for _, key in ipairs({ keys.blocked, keys.dependents, keys.awaits, keys.opening }) do redis.call("ZCARD", key) end
    end
  end
  local changes = unique and #unique.changes > 0
  if not changes then look() end
  return reply, function()
    if changes then
      supersede(keys, unique.changes, place, now)
      look()
      stood = tonumber(redis.call("HGET", counters, "bytes_unfinished") or nil) or 0
    end
    if #fresh == 0 then
      reply[1] = 0
      return
    end
    redis.call("HSET", jobs, unpack(records))
    if #bodies > 0 then redis.call("HSET", keys.bodies, unpack(bodies)) end
    local before = redis.call("ZCARD", ready) -- with what the changes of this call have made ready
    if #runnable > 0 then redis.call("ZADD", ready, unpack(runnable)) end
    if keys.laned then
      -- The first job with a group gives the queue lanes; what stood there before is filed by the claims to come.
      if not in_lanes then
        redis.call("HSET", config, "lanes", "1")
        redis.call("HDEL", counters, "filed", "counted")
      end
      if before == 0 then redis.call("HSET", counters, "filed", "all") end
      local list = {}
      for i = 1, #runnable, 2 do
        local id = runnable[i + 1]
        list[#list + 1] = { id = id, score = runnable[i], record = seen[id] }
      end
      line_up(keys, list)
    end
    if #waiting > 0 then redis.call("ZADD", scheduled, unpack(waiting)) end
    if #tied > 0 then
      -- @include lib/tie
      tie(keys, tied, now)
    end
    if #forgotten > 0 then
      redis.call("HDEL", known, unpack(forgotten))
      redis.call("ZREM", expiries, unpack(forgotten))
    end
    if unique and #unique.entries > 0 then redis.call("HSET", known, unpack(unique.entries)) end
    if #timed > 0 then redis.call("ZADD", expiries, unpack(timed)) end
    total = (tonumber(total) or 0) + #fresh
    redis.call("HSET", counters, "place", string.format("%.0f", place), "enqueue", string.format("%.0f", total),
      "bytes_unfinished", string.format("%.0f", stood + weight),
      "due_ms", due_ms and string.format("%.0f", due_ms) or "",
      "due_score", due_score and string.format("%.0f", due_score) or "")
    if not created then redis.call("HSET", config, "created", string.format("%.0f", now)) end
    announce(keys, "enqueue", "", now, { ids = fresh, runnable = #runnable > 0, due = soonest })
  end
end
