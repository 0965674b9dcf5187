-- demand: read only, how much there is to do for workers of a queue
--
-- What may start now and what is held: by the queue's pause, by types and groups that are paused, by limits without room. A limit
-- with room for some holds those beyond; every job is taken to cost 1. Exact up to `limit` (1..500, "": 500) types and lanes,
-- where groups have limits half of them types at the most; beyond that what was not looked at counts as the rest of its type
-- does. Where limits of types and of groups both have room for some, it may be off by a few: turns decide who gets it.
--
-- Returns the time in ms, 1 when the queue exists, how many run, how many ready jobs may start now, 1 when that is exact, when
-- the first of those became ready (ms, "" for none), then each reason and how many it holds.
-- @flags no-writes
-- @include lib/clock
-- @include lib/laned
-- @include lib/runnable
-- @include lib/place_of
local jobs, ready, running, types, lanes, slots, meters, groups, config = unpack(KEYS)
local now, limit = unpack(ARGV)

limit = limit == "" and 500 or tonumber(limit)
if not (limit and limit >= 1 and limit <= 500) then return redis.error_reply("BATCH limit is 1..500") end
local keys = { jobs = jobs, ready = ready, running = running, types = types, lanes = lanes, slots = slots, meters = meters,
  groups = groups, config = config }
local created, paused, step, in_lanes, counting = unpack(redis.call("HMGET", config, "created", "paused", "step", "lanes", "slots"))
local micros
now, micros = clock(now)

local sum, held, exact = redis.call("ZCARD", ready), {}, true
local first = redis.call("ZRANGE", ready, 0, 0)[1]
laned(keys, in_lanes, counting)
if paused then
  if sum > 0 then held.queue_paused = sum end
  sum, first = 0, nil
elseif keys.limited then
  sum, first, held, exact = runnable(keys, now, micros, limit)
end
local since = ""
if first then
  local created_at, rank = string.match(redis.call("HGET", jobs, first) or "", "^[^|\n]*|[^|\n]*|[^|\n]*|(%d+)|(%-?%d*)|")
  local score = tonumber(redis.call("ZSCORE", ready, first) or nil) or 0
  local place = place_of(score, tonumber(rank) or 0, tonumber(step) or 60000000, tonumber(created_at) or 0, micros)
  since = string.format("%.0f", math.floor(place / 1000))
end
local reply = { string.format("%.0f", now), created and 1 or 0, redis.call("ZCARD", running), sum, exact and 1 or 0, since }
for reason, n in pairs(held) do reply[#reply + 1], reply[#reply + 2] = reason, n end
return reply
