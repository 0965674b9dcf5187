-- verify: read only unless it repairs; does every job stand in exactly one set?
--
-- Looks at about `limit` (1..500) members of one structure from `cursor` on ("0" first), each against all others
-- in this same call, so that a finding is exact while jobs move. With `repair` what is found is put right at once:
-- a job in no set becomes ready, of several sets the one that its records speak for stays, a running job without
-- a lease is run out, what belongs to no job goes.
--
-- Returns the next cursor ("0" at the end), how many were looked at, then for each finding: the id, what is wrong
-- with it, and "repaired" or "".
-- @flags allow-oom
-- @include lib/begin
-- @include lib/faults
-- @include lib/mend
local jobs, ready, scheduled, retrying, blocked, running, succeeded, cancelled, dead, leases, attempts, results, known, expiries, notes, counters, config, bell, events = unpack(KEYS)
local now, structure, cursor, limit, repair = unpack(ARGV)

local level = redis.call("HGET", config, "level")
if (tonumber(level) or 1) > 1 then return redis.error_reply("LEVEL " .. level) end
limit = limit == "" and 500 or tonumber(limit)
if not (limit and limit >= 1 and limit <= 500) then return redis.error_reply("BATCH limit is 1..500") end
local keys = { jobs = jobs, ready = ready, scheduled = scheduled, retrying = retrying, blocked = blocked, running = running,
  succeeded = succeeded, cancelled = cancelled, dead = dead, leases = leases, attempts = attempts, results = results,
  known = known, expiries = expiries, notes = notes, counters = counters, config = config, bell = bell, events = events }
local hashes = { jobs = true, leases = true, attempts = true, results = true, known = true }
local sorted = { ready = true, scheduled = true, retrying = true, blocked = true, running = true, succeeded = true,
  cancelled = true, dead = true }
if not hashes[structure] and not sorted[structure] then return redis.error_reply("INVALID structure") end
now = begin(keys, now)

local page = redis.call(hashes[structure] and "HSCAN" or "ZSCAN", keys[structure], cursor, "COUNT", limit)
local found, members = {}, page[2]
for i = 1, #members, 2 do
  for _, fault in ipairs(faults(keys, members[i])) do found[#found + 1] = { members[i], fault } end
end
local reply = { page[1], #members / 2 }
for _, finding in ipairs(found) do
  reply[#reply + 1], reply[#reply + 2] = finding[1], finding[2]
  reply[#reply + 1] = repair == "1" and mend(keys, finding[1], now) or ""
end
return reply
