-- schedule_fire: slots -> jobs, or skipped; (new) -> ready | scheduled
--
-- A slot that is due becomes a job and the schedule's next slot takes its place, in this one call, only if `slot` is the one that
-- stands and `version` the one that the caller has read: so a slot fires once, however many try. Without a `key` it is
-- skipped, for `reason`, and `skipped` others up to `upto` with it ("" for none); without a reason it is only moved.
-- With `overlap` "skip" it is skipped while a job of an earlier slot has not ended; with "queue_one:" and the queue's name while
-- one has not started, and where one runs the new one waits for its end (to be made known to it, lua/follow.lua). Without a
-- `slot` a job is made besides, and no slot moves. What the queue has no room for is skipped too. More than 4 MiB of payloads
-- a call wait for the next.
--
-- Returns the time in ms, then for each "fired", "skipped", "moved", "later", "taken" (another slot stands), "changed" (another
-- version does), "missing" (no such schedule) or "finished" (it has had as many runs as it may), and why it was skipped, or
-- of a fired one "blocked" where it waits.
-- @flags
-- @include lib/clock
-- @include lib/refusal
-- @include lib/schedule_of
-- @include lib/schedule_text
-- @include lib/take_in
local schedules, fires, jobs, bodies, ready, scheduled, retrying, blocked, running, succeeded, cancelled, dead, attempts, known, expiries, notes, dependents, awaits, opening, counters, lanes, heads, turns, parked, lines, config, events, bell = unpack(KEYS)
local now, count = unpack(ARGV) -- then `count` times: name, version, slot, next, key, run_at_ms, overlap, skipped, upto, reason

local refused = refusal(redis.call("HGET", config, "level"), count, 2, 10)
if refused then return refused end
local function whole(text)
  local number = tonumber(text)
  return text == "" or number and number >= 0 and number <= 9007199254740991 and number % 1 == 0
end
for i = 1, tonumber(count) do
  local _, _, slot, next, _, _, _, more, upto, reason = item(2, 10, i)
  if not (whole(slot) and whole(next) and whole(upto)) then return redis.error_reply("INVALID slot of item " .. i) end
  if not whole(more) or string.find(reason, "[^%a_]") then return redis.error_reply("INVALID reason of item " .. i) end
end
local micros
now, micros = clock(now)
local keys = { jobs = jobs, bodies = bodies,
  ready = ready, scheduled = scheduled, retrying = retrying, blocked = blocked, running = running,
  succeeded = succeeded, cancelled = cancelled, dead = dead, attempts = attempts, known = known, expiries = expiries,
  notes = notes, dependents = dependents, awaits = awaits, opening = opening, counters = counters, lanes = lanes,
  heads = heads, turns = turns, parked = parked, lines = lines, config = config, events = events, bell = bell }

local reply, found, moved, gone, firing, bytes = { string.format("%.0f", now) }, {}, {}, {}, {}, 0

-- Whether a job of the schedule has not ended, and whether one has not even started.
local function unfinished(its)
  local open, waits = {}, false
  for _, key in ipairs(its.open) do
    local there = its.fresh[key] and "ready"
    for _, state in ipairs({ "ready", "running", "scheduled", "retrying", "blocked" }) do
      there = there or redis.call("ZSCORE", keys[state], key) and state
    end
    if there then open[#open + 1] = key end
    waits = waits or there and there ~= "running" and there ~= "retrying"
  end
  its.open = open
  return #open > 0, waits
end
local function skip(its, slot, more, upto, reason)
  its.skipped = its.skipped + 1 + (tonumber(more) or 0)
  table.insert(its.lines, table.concat({ slot, string.format("%.0f", now), "", reason, more, upto }, "|"))
end

for i = 1, tonumber(count) do
  local name, version, slot, next, key, run_at, overlap, more, upto, reason = item(2, 10, i)
  local its = found[name]
  if its == nil then
    its = schedule_of(schedules, fires, name) or false
    found[name] = its
    if its then its.name, its.fresh, its.ahead = name, {}, its.runs end
  end
  local said, why = "moved", ""
  local payload = its and key ~= "" and redis.call("HGET", schedules, "=" .. name) or ""
  if not its then
    said = "missing"
    if not gone[name] then table.insert(gone, name) end
    gone[name] = true
  elseif tonumber(version) ~= its.version then
    said = "changed"
  elseif slot ~= "" and its.slot ~= tonumber(slot) then
    said = "taken"
  elseif slot ~= "" and its.most and its.ahead >= its.most then
    said = "finished"
  elseif key ~= "" and bytes > 0 and bytes + #payload > 4194304 then
    -- What follows of this schedule waits too: its slot does not move.
    said = "later"
  else
    if not moved[name] then table.insert(moved, its) end
    moved[name] = true
    if slot ~= "" then its.slot, its.last = tonumber(next), slot end
    if key == "" then
      if reason ~= "" then
        skip(its, slot, more, upto, reason)
        said, why = "skipped", reason
      end
    end
    local queue = string.match(overlap, "^queue_one:(.+)$")
    local held, waits = false, false
    if key ~= "" and (queue or overlap == "skip") then held, waits = unfinished(its) end
    if key ~= "" and (waits or held and not queue) then
      skip(its, slot, more, upto, "overlap")
      said, why = "skipped", "overlap"
    elseif key ~= "" then
      local after = held and { unpack(its.open) } or {}
      for n, one in ipairs(after) do after[n] = queue .. ":" .. one end
      said, bytes = "fired", bytes + #payload
      its.fresh[key] = true
      table.insert(its.open, key)
      if slot ~= "" then its.ahead = its.ahead + 1 end
      firing[#firing + 1] = { its = its, key = key, slot = slot, run_at = run_at, payload = payload, at = #reply,
        after = after }
    end
  end
  reply[#reply + 1], reply[#reply + 2] = said, why
end

local taken, write
if #firing > 0 then
  taken, write = take_in(keys, now, micros, #firing, function(i)
    local one = firing[i]
    local its = one.its
    local kind, priority, timeout, retention, rules, fingerprint, crc =
      string.match(its.rest, "^([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)$")
    local header = its.header
    if one.slot ~= "" then header = string.sub(header, 1, -2) .. ',"slot":' .. one.slot .. "}" end
    if #one.after > 0 then
      header = string.sub(header, 1, -2) .. ',"after":["' .. table.concat(one.after, '","') .. '"]}'
      for _, id in ipairs(one.after) do rules = rules .. " after:" .. id end
      rules = rules .. " failure:continue"
    end
    return one.key, kind or "", one.payload, priority, "", one.run_at, timeout or "", retention or "", rules or "",
      fingerprint or "", crc or "", header
  end)
  if not write then return taken end
  write()
end
local words = { full = "full", conflict = "conflict", past = "expired" }
for i, one in ipairs(firing) do
  local its, reason = one.its, words[taken[1 + 2 * i]]
  if reason then
    skip(its, one.slot, "", "", reason)
    for n = #its.open, 1, -1 do
      if its.open[n] == one.key then table.remove(its.open, n) end
    end
    reply[one.at + 1], reply[one.at + 2] = "skipped", reason
  elseif taken[1 + 2 * i] == "blocked" then
    reply[one.at + 2] = "blocked"
  end
  if not reason and (one.slot ~= "" or taken[1 + 2 * i] ~= "exists") then
    if one.slot ~= "" then its.runs = its.runs + 1 end
    table.insert(its.lines, one.slot .. "|" .. string.format("%.0f", now) .. "|" .. one.key .. "|fired||")
  end
end
for _, its in ipairs(moved) do
  if its.most and its.runs >= its.most then its.slot = nil end
  its.ended = not its.paused and not its.slot
  redis.call("HSET", schedules, ":" .. its.name, schedule_text(its))
  if its.slot then
    redis.call("ZADD", fires, string.format("%.0f", its.slot), its.name)
  else
    redis.call("ZREM", fires, its.name)
  end
end
for _, name in ipairs(gone) do redis.call("ZREM", fires, name) end
return reply
