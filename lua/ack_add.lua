-- ack_add: running -> succeeded, and what it has added -> ready | scheduled | blocked
--
-- The attempt did its work, which was to find out what else there is to do: jobs are added, and whoever waits for this job (its
-- flow too) waits for them as well. All of it or nothing. `queue` is the name of this one; jobs of another leave as words of
-- this one: they are enqueued there once at least, by whoever relays them, and found to stand when that is done again. One
-- that stands already, by the same request, is waited for as it is.
--
-- Returns "succeeded" (again, when this token's ack is repeated), "stale", "missing"; or what refuses the whole: "full",
-- "past", "conflict" or, where those who wait times those that are added would be more than 20,000, "wide", and the id that does.
-- @flags
-- @include lib/clock
-- @include lib/refusal
-- @include lib/succeed
-- @include lib/take_in
-- @include lib/post
local jobs, bodies, ready, scheduled, retrying, blocked, running, leases, succeeded, cancelled, dead, attempts, results, known, expiries, notes, logs, dependents, awaits, parents, signals, opening, types, lanes, heads, turns, parked, lines, waits, slots, meters, config, counters, bell, events = unpack(KEYS)
local now, worker, queue, job, token, result, count = unpack(ARGV) -- then `count` times: id, type, payload, priority, delay_ms, run_at_ms, timeout_ms, retention_ms, rules, fingerprint, crc, header, queue

local refused = refusal(redis.call("HGET", config, "level"), count, 7, 13)
if refused then return refused end
local micros
now, micros = clock(now)
local keys = { jobs = jobs, bodies = bodies,
  ready = ready, scheduled = scheduled, retrying = retrying, blocked = blocked, running = running,
  leases = leases, succeeded = succeeded, cancelled = cancelled, dead = dead, attempts = attempts, results = results,
  known = known, expiries = expiries, notes = notes, logs = logs, dependents = dependents, awaits = awaits,
  parents = parents, signals = signals, opening = opening, types = types, lanes = lanes, heads = heads, turns = turns,
  parked = parked, lines = lines, waits = waits, slots = slots, meters = meters, config = config, counters = counters,
  bell = bell, events = events }
local fresh, added = {}, {}
for i = 1, tonumber(count) do
  local fields = { item(7, 13, i) }
  local its = table.remove(fields)
  if #its > 70 or not string.find(its, "^%w[%w._~-]*$") then return redis.error_reply("INVALID queue of item " .. i) end
  if #fields[1] > 128 or not string.find(fields[1], "^[%w._-]+$") then return redis.error_reply("INVALID id of item " .. i) end
  added[i] = its .. ":" .. fields[1]
  fresh[i] = { id = added[i], fields = fields, here = its == queue }
end
local reply, write = succeed(keys, now, worker, 1, function() return job, token, result end)
if not write then return { reply[1], "" } end

local before, here, away = {}, {}, {}
for i, member in ipairs(redis.call("ZRANGEBYLEX", dependents, "[" .. job .. " ", "(" .. job .. "!", "LIMIT", 0, 1001)) do
  before[i] = "before:" .. string.sub(member, #job + 2)
end
if #before > 1000 or #before * #fresh > 20000 then return { "wide", queue .. ":" .. job } end
local words = table.concat(before, " ")
for _, one in ipairs(fresh) do
  local rules = one.fields[9]
  if words ~= "" then one.fields[9] = rules == "" and words or rules .. " " .. words end
  table.insert(one.here and here or away, one)
end
local standing, enter = {}, nil
if #here > 0 then
  local taken
  taken, enter = take_in(keys, now, micros, #here, function(i) return unpack(here[i].fields) end, true)
  if taken.err then return taken end
  for i, one in ipairs(here) do
    local outcome = taken[2 * i + 1]
    if outcome == "full" or outcome == "past" or outcome == "conflict" then return { outcome, one.id } end
    if outcome == "exists" then standing[#standing + 1] = one.fields[1] end
  end
end
for _, key in ipairs({ dependents, signals, retrying, blocked, dead, cancelled }) do redis.call("ZCARD", key) end
redis.call("HLEN", notes)

if enter then enter() end
post(keys, away, now)
adopt(keys, standing, before, now)
write(table.concat(added, " "))
return { "succeeded", "" }
