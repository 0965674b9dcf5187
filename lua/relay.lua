-- relay: what is to be told of jobs that ended, to those that wait for them
--
-- First takes note of what has been told: each item names a job that ended (queue's own key, or = and a flow), the `order`
-- of the word about it, and the last of those in line who have heard it. Then answers a page of up to `limit` (1..500) more,
-- at most about 4 MiB, the oldest words first, `beyond` (an order, "" for none) those after it: so one whose listeners
-- cannot be reached does not stand in the way. A word is kept until all have heard it: it is told once at least, and
-- resolve takes it in once.
--
-- A word may also be a job that goes to another queue (lua/ack_add.lua): its state is "enqueue", and its result the twelve
-- fields that enqueue takes, each with its length before it.
--
-- Returns 1 when more is left, the ids (a space between) that for 30 s or more have waited without being known to those
-- they wait for, then for each listener: the job that ended, the order, the state, the result, what it has added, and the
-- listener (queue:key, or queue:=flow).
-- @flags allow-oom
-- @include lib/refusal
-- @include lib/begin
-- @include lib/told
local jobs, dependents, signals, opening, flows, notes, config, counters, bell, events = unpack(KEYS)
local now, limit, beyond, count = unpack(ARGV) -- then `count` times: from, order, upto

local refused = refusal(redis.call("HGET", config, "level"), count, 4, 3, limit)
if refused then return refused end
limit = limit == "" and 100 or tonumber(limit)
if not (limit and limit >= 1 and limit <= 500) then return redis.error_reply("BATCH limit is 1..500") end
if beyond ~= "" and not tonumber(beyond) then return redis.error_reply("INVALID beyond") end
local keys = { jobs = jobs, dependents = dependents, signals = signals, opening = opening, flows = flows, notes = notes,
  config = config, counters = counters, bell = bell, events = events }
now = begin(keys, now)

redis.call("HDEL", counters, "relay_told")
for i = 1, tonumber(count) or 0 do
  local from, order, upto = item(4, 3, i)
  told(keys, from, order, upto)
end
local reply, bytes, full = { 0, "" }, 0, false
local late = redis.call("ZRANGEBYSCORE", opening, "-inf", string.format("%.0f", now - 30000), "LIMIT", 0, 100)
reply[2] = table.concat(late, " ")
local first = beyond == "" and "-inf" or "(" .. beyond
local oldest = redis.call("ZRANGEBYSCORE", signals, first, "+inf", "LIMIT", 0, limit)
for _, from in ipairs(oldest) do
  local order, state, cursor, added, result =
    string.match(redis.call("HGET", notes, from .. ":signal") or "", "^(%d+)|(%a+)|([^|\n]*)|([^\n]*)\n(.*)$")
  local start = cursor and cursor ~= "" and "(" .. from .. " " .. cursor or "[" .. from .. " "
  local rows = order and limit - (#reply - 2) / 6 or 0
  local page = rows > 0 and redis.call("ZRANGEBYLEX", dependents, start, "(" .. from .. "!", "LIMIT", 0, rows + 1) or {}
  if order and rows <= 0 then full = true end
  if state == "enqueue" and rows > 0 then page = { from .. " " .. string.match(from, "^%+([^!]+)") } end
  if not order or rows > 0 and #page == 0 then
    redis.call("ZREM", signals, from)
    redis.call("HDEL", notes, from .. ":signal")
  end
  for nth, member in ipairs(page) do
    if nth > rows or bytes > 4194304 then
      full = true
      break
    end
    bytes = bytes + #result
    for _, part in ipairs({ from, order, state, result, added, string.sub(member, #from + 2) }) do
      reply[#reply + 1] = part
    end
  end
  if full then break end
end
reply[1] = (full or #oldest == limit) and 1 or 0
return reply
