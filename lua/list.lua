-- list: read only, a page of the jobs of one state
--
-- Ended ones newest first, ready in the order they will run, scheduled and retrying by due time, running and
-- blocked by their score. `after` is what the last page answered as its cursor. At most `look` (1..2000) jobs
-- are looked at a call: with a filter a page may be short or empty and still have a cursor. Of dead ones a `fingerprint`
-- shows those that died alike, without looking at others. `error_kind` is the kind of any error, `kind` that of the last.
-- `before_ms`: ended before then, for others created before then.
--
-- Returns the cursor ("" at the end), then for each job where it stands: `<order>|<1 or 2>|<id>`, which is a cursor too.
-- @flags no-writes
-- @include lib/matches
local jobs, ready, scheduled, retrying, blocked, running, succeeded, cancelled, dead, dead_index, attempts = unpack(KEYS)
local state, after, limit, look, type, group, tag, error_kind, kind, fingerprint, before_ms = unpack(ARGV)

local sets = { ready = ready, scheduled = scheduled, retrying = retrying, blocked = blocked, running = running,
  succeeded = succeeded, cancelled = cancelled, dead = dead }
local set = sets[state]
limit, look = tonumber(limit) or 100, math.min(tonumber(look) or 2000, 2000)
if not set or not (limit >= 1 and limit <= 1000 and look >= 1) then return redis.error_reply("INVALID state, limit or look") end
local ended = state == "succeeded" or state == "cancelled" or state == "dead"
local last, side, last_id = string.match(after, "^(%-?%d+)|([12])|(.*)$")
if after ~= "" and not last then return redis.error_reply("INVALID cursor") end
last, side = tonumber(last), tonumber(side)
local before = tonumber(before_ms)
if before_ms ~= "" and not before then return redis.error_reply("INVALID before_ms") end
if fingerprint ~= "" and (state ~= "dead" or not string.find(fingerprint, "^%x+$") or #fingerprint ~= 16) then
  return redis.error_reply("INVALID fingerprint")
end
-- Of an ended list, what begins after `before` is passed over at once.
if ended and before and (not last or last >= before) then
  last, side, last_id = before - 1, 1, "~"
  if last < 0 then return { "" } end
end

-- One stream of {order, id}, from the cursor on; of a tie the first stream's come before the second's.
local function stream(nth, descending, first, final)
  local offset, page, at = 0, {}, 1
  return function()
    while true do
      if at > #page then
        local command = descending and "ZREVRANGEBYSCORE" or "ZRANGEBYSCORE"
        page, at = redis.call(command, set, first, final, "WITHSCORES", "LIMIT", offset, 100), 1
        offset = offset + 100
        if #page == 0 then return nil end
      end
      local id, score = page[at], tonumber(page[at + 1])
      at = at + 2
      local order = ended and math.abs(score) or score
      local beyond = not last or order ~= last or nth > side
      if not beyond and nth == side then beyond = descending and id < last_id or not descending and id > last_id end
      if beyond then return { order, id } end
    end
  end
end

-- The same of those that died alike. All of them are the first stream's, whatever keeps them.
local function alike(first)
  local page, at = {}, 1
  return function()
    if at > #page then
      page, at = redis.call("ZREVRANGEBYLEX", dead_index, first, "[" .. fingerprint, "LIMIT", 0, 100), 1
      if #page == 0 then return nil end
      first = "(" .. page[#page]
    end
    local member = page[at]
    at = at + 1
    return { tonumber(string.sub(member, 17, 31)), string.sub(member, 32) }
  end
end

-- The two kinds of ended jobs (see ended_score) are one list again: of a tie the queue's kind comes first.
local from = last and string.format("%.0f", last)
local streams
if fingerprint ~= "" then
  streams = { alike("(" .. fingerprint .. (last and string.format("%015.0f%s", last, last_id) or ":")) }
elseif ended then
  streams = { stream(1, true, from or "+inf", 0), stream(2, false, from and "-" .. from or "-inf", "(0") }
else
  streams = { stream(1, false, from or "-inf", "+inf") }
end
local heads = {}
for i, next_of in ipairs(streams) do heads[i] = next_of() end

local asked = { type = type, group = group, tag = tag, error = error_kind, kind = kind }
local reply, looked, cursor = { "" }, 0, ""
while looked < look and #reply <= limit do
  local first
  for i = 1, #streams do
    if heads[i] and (not first or heads[i][1] > heads[first][1]) then first = i end
  end
  if not first then return reply end
  local order, id = heads[first][1], heads[first][2]
  heads[first] = streams[first]()
  looked = looked + 1
  cursor = string.format("%.0f|%d|%s", order, first, id)
  if matches(jobs, attempts, id, asked, not ended and before) then reply[#reply + 1] = cursor end
end
local left = false
for i = 1, #streams do left = left or heads[i] ~= nil end
if left then reply[1] = cursor end
return reply
