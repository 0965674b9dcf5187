-- follow: who waits for a job makes itself known to it
--
-- Each item names a job of this queue (or = and a flow that is not open yet) and one, of any queue, that waits for it. It will
-- be told of the end; of one that has ended already, the answer is the word about it. Again for the same two changes nothing.
--
-- Returns for each item the state ("waits" for one that has not ended, "missing" for one that is not known), the order of
-- this word and the result.
-- @flags
-- @include lib/refusal
-- @include lib/begin
-- @include lib/state_of
-- @include lib/result_of
-- @include lib/int
local jobs, bodies, ready, scheduled, retrying, blocked, running, succeeded, cancelled, dead, results, known, dependents, signals, flows, config, counters, bell, events = unpack(KEYS)
local now, count = unpack(ARGV) -- then `count` times: from, id

local level, created = unpack(redis.call("HMGET", config, "level", "created"))
local refused = refusal(level, count, 2, 2)
if refused then return refused end
local keys = { jobs = jobs, bodies = bodies,
  ready = ready, scheduled = scheduled, retrying = retrying, blocked = blocked, running = running,
  succeeded = succeeded, cancelled = cancelled, dead = dead, results = results, known = known, dependents = dependents,
  signals = signals, flows = flows, config = config, counters = counters, bell = bell, events = events }
now = begin(keys, now)

local reply, members, told = {}, {}, {}
local order = math.max((tonumber(redis.call("HGET", counters, "signal") or nil) or 0) + 1, now * 1000)
for i = 1, tonumber(count) do
  local from, id = item(2, 2, i)
  if not string.find(from, "^=?[%w._-]+$") then return redis.error_reply("INVALID from of item " .. i) end
  if #id > 200 or not string.find(id, "^%w[%w._~-]*:=?[%w._-]+$") then return redis.error_reply("INVALID id of item " .. i) end
  local state, result = "missing", ""
  if string.sub(from, 1, 1) == "=" then
    local its = string.match(redis.call("HGET", flows, string.sub(from, 2)) or "", "^%a+")
    if its then state = its == "building" and "waits" or its == "undone" and "missing" or "succeeded" end
  elseif created then
    local its, _, ended = state_of(keys, from)
    state = its or ended or "missing"
    if state == "succeeded" and redis.call("ZSCORE", signals, from) and redis.call("ZSCORE", dependents, from .. " " .. id) then
      -- The word itself is on its way, with what that one has added: this one must not overtake it.
      state = "waits"
    elseif state == "succeeded" then
      result = result_of(keys, from)
      if #result > 65536 then result = "" end
    elseif state ~= "dead" and state ~= "cancelled" and state ~= "missing" then
      state = "waits"
    end
    -- What is gone but known still ends no more.
    if not its then told[from] = true end
  end
  if state ~= "missing" and state ~= "succeeded" and not told[from] then
    members[#members + 1], members[#members + 2] = 0, from .. " " .. id
  end
  for _, part in ipairs({ state, int(order), result }) do reply[#reply + 1] = part end
end
if #members > 0 then
  redis.call("ZADD", dependents, unpack(members))
  redis.call("HSET", counters, "signal", int(order))
end
return reply
