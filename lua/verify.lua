-- verify: read only unless it repairs; does every job stand in exactly one set?
--
-- Looks at about `limit` (1..500) members of one structure from `cursor` on ("0" first), each against all others
-- in this same call, so that a finding is exact while jobs move. With `repair` what is found is put right at once:
-- a job in no set becomes ready, of several sets the one that its records speak for stays, a running job without
-- a lease is run out, a dead one joins its group, a ready one its lane, a blocked one that waits for nothing becomes ready, what
-- belongs to no job or schedule goes. A
-- unique key is told as it stands in `known`. The structure "bytes" is the count that `max_bytes` goes by, compared while
-- no job moves.
--
-- Returns the next cursor ("0" at the end), how many were looked at, then for each finding: the id, what is wrong
-- with it, and "repaired" or "".
-- @flags allow-oom
-- @include lib/begin
-- @include lib/mend
-- @include lib/lane_fault
-- @include lib/tie_fault
-- @include lib/weigh
local jobs, bodies, ready, scheduled, retrying, blocked, running, succeeded, cancelled, dead, dead_index, dead_groups, leases, attempts, results, known, expiries, notes, dependents, awaits, parents, signals, opening, flows, lanes, heads, turns, parked, lines, waits, slots, schedules, fires, counters, config, bell, events = unpack(KEYS)
local now, structure, cursor, limit, repair = unpack(ARGV)

local level = redis.call("HGET", config, "level")
if (tonumber(level) or 1) > 1 then return redis.error_reply("LEVEL " .. level) end
limit = limit == "" and 500 or tonumber(limit)
if not (limit and limit >= 1 and limit <= 500) then return redis.error_reply("BATCH limit is 1..500") end
local keys = { jobs = jobs, bodies = bodies, ready = ready, scheduled = scheduled, retrying = retrying, blocked = blocked,
  running = running, succeeded = succeeded, cancelled = cancelled, dead = dead, dead_index = dead_index,
  dead_groups = dead_groups, leases = leases, attempts = attempts, results = results, known = known,
  expiries = expiries, notes = notes, counters = counters, config = config, bell = bell, events = events,
  lanes = lanes, heads = heads, turns = turns, parked = parked, lines = lines, waits = waits, slots = slots,
  dependents = dependents, awaits = awaits, parents = parents, signals = signals, opening = opening, flows = flows,
  schedules = schedules, fires = fires }
local hashes = { jobs = true, leases = true, attempts = true, results = true, known = true, parents = true,
  schedules = true }
local sorted = { ready = true, scheduled = true, retrying = true, blocked = true, running = true, succeeded = true,
  cancelled = true, dead = true, dead_index = true, dead_groups = true }
local tied = { dependents = true, awaits = true, parents = true, signals = true, opening = true }
local filed = { lanes = true, heads = true, turns = true, parked = true, lines = true, slots = true,
  schedules = true, fires = true }
redis.call("HLEN", schedules)
redis.call("ZCARD", fires)
if not hashes[structure] and not sorted[structure] and not filed[structure] and not tied[structure]
  and structure ~= "bytes" then
  return redis.error_reply("INVALID structure")
end
now = begin(keys, now)
if structure == "bytes" then
  local following, looked, fault = weigh(keys, cursor, limit, repair == "1")
  if not fault then return { following, looked } end
  return { following, looked, "bytes_unfinished", fault, repair == "1" and "repaired" or "" }
end

local page = redis.call(hashes[structure] and "HSCAN" or "ZSCAN", keys[structure], cursor, "COUNT", limit)
local reply, members = { page[1], #page[2] / 2 }, page[2]
local function tell(what, sentence, mended)
  reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = what, sentence, mended
end
for i = 1, #members, 2 do
  local member = members[i]
  if filed[structure] then
    local fault = lane_fault(keys, structure, member, repair == "1")
    if fault then tell(member, fault, repair == "1" and "repaired" or "") end
  elseif tied[structure] then
    local fault = tie_fault(keys, structure, member, repair == "1")
    if fault then tell(member, fault, repair == "1" and "repaired" or "") end
  elseif structure == "dead_index" then
    if grouped(keys, string.sub(member, 32)) ~= member then
      tell(string.sub(member, 32), "is in a group of dead jobs but not dead", repair == "1" and "repaired" or "")
      if repair == "1" then redis.call("ZREM", dead_index, member) end
    end
  elseif structure == "dead_groups" then
    if #redis.call("ZRANGEBYLEX", dead_index, "[" .. member, "(" .. member .. ":", "LIMIT", 0, 1) == 0 then
      tell(member, "is a group of dead jobs without any", repair == "1" and "repaired" or "")
      if repair == "1" then redis.call("ZREM", dead_groups, member) end
    end
  elseif structure == "known" and string.sub(member, 1, 1) == "=" then
    local id = string.match(members[i + 1], "^[^|]*")
    local tomb = string.match(redis.call("HGET", known, id) or "", "\n(.*)$")
    local head = redis.call("HGET", jobs, id) or tomb or ""
    if string.match(head, "^[^|\n]*|[^|\n]*|[^|\n]* u:([%w._-]+)") ~= string.sub(member, 2) then
      tell(member, "is a unique key that no job has", repair == "1" and "repaired" or "")
      if repair == "1" then redis.call("HDEL", known, member) end
    end
  else
    for _, fault in ipairs(faults(keys, member, structure == "jobs" and members[i + 1] or nil)) do
      tell(member, fault, repair == "1" and mend(keys, member, now) or "")
    end
  end
end
return reply
