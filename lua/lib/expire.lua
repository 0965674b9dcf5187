-- @include lib/excess
-- @include lib/trim
-- @include lib/state_of
-- @include lib/leave_line
-- @include lib/lapse
-- @include lib/disband
-- @include lib/weight_of
-- Lets go what stands in `expiries` and whose time is over (ended jobs with a retention of their own, known ids,
-- receipts), ends the jobs that waited beyond their deadline, at most 4 MiB of records, then lets go what the queue's
-- retention no longer keeps. Answers how many, 1 when more may be left, and the ids of those that are
-- dead by their deadline. The caller has read every key, so that
-- nothing here can fail.
local function expire(keys, now, limit)
  local due = redis.call("ZRANGEBYSCORE", keys.expiries, "-inf", string.format("%.0f", now), "LIMIT", 0, limit)
  local waited, went, bytes = {}, 0, 0
  local tombs, forgotten = #due > 0 and redis.call("HMGET", keys.known, unpack(due)) or {}, {}
  for i, member in ipairs(due) do
    local tomb = tombs[i]
    if tomb and not string.find(member, "^[:~=]") then
      forgotten[#forgotten + 1] = member
      if string.find(tomb, " u:", 1, true) then free_key(keys.known, member, string.match(tomb, "\n(.*)$"), now, true) end
    end
  end
  if #forgotten > 0 then
    redis.call("HDEL", keys.known, unpack(forgotten))
    redis.call("ZREM", keys.expiries, unpack(forgotten))
    went = #forgotten
  end
  for i, member in ipairs(due) do
    if bytes > 4194304 then break end
    local mark, its = string.match(member, "^([:~=])(.*)$")
    local buried = tombs[i] and not mark
    if not buried then
      went = went + 1
      redis.call("ZREM", keys.expiries, member)
    end
    if mark == ":" then
      redis.call("HDEL", keys.receipts, its)
    elseif mark == "~" then
      if not state_of(keys, its) and redis.call("HEXISTS", keys.flows, string.sub(its, 2)) == 0 then forsake(keys, its, now) end
    elseif mark == "=" then
      disband(keys, its, now)
    elseif not buried then
      local state, score = state_of(keys, member)
      if state == "succeeded" or state == "cancelled" or state == "dead" then
        -- Of one whose own retention does not decide, what stood here was its deadline.
        if score < 0 then drop(keys, state, { member }, now) end
      elseif state and state ~= "running" then
        local record, history = redis.call("HGET", keys.jobs, member) or "", redis.call("HGET", keys.attempts, member) or ""
        local flags = string.match(record, "^[^|\n]*|[^|\n]*|([^|\n]*)|")
        local over = flags and lapses(flags, tonumber(string.match(history, "^(%d+)|")) or 0)
        bytes = bytes + #record
        if over and over <= now then
          if keys.laned and state == "ready" then leave_line(keys, member, record) end
          redis.call("ZREM", keys[state], member)
          if state == "blocked" then redis.call("ZREM", keys.opening, member) end
          waited[#waited + 1] = { id = member, flags = flags, bytes = weight_of(keys, member, record), history = history }
        elseif over then
          redis.call("ZADD", keys.expiries, string.format("%.0f", over), member)
        end
      end
    end
  end
  local dead = #waited > 0 and lapse(keys, waited, now) or {}
  local more = (went < #due or #due == limit) and 1 or 0
  for _, state in ipairs({ "succeeded", "cancelled", "dead" }) do
    local field = "keep_" .. state .. "_"
    local keep = redis.call("HMGET", keys.config, field .. "age", field .. "count", field .. "bytes")
    local beyond = excess(keys, state, keep, now, 0, 0)
    local dropped = beyond and trim(keys, state, beyond, now, limit) or 0
    went, more = went + dropped, dropped == limit and 1 or more
  end
  return went, more, dead
end
