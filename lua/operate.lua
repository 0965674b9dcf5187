-- operate: the record of an operation over many jobs; no job moves
--
-- `begin` makes it, with `value` as what is to be done; the oldest that have ended leave beyond 100. `carry` gives it to
-- `carrier` for 15 s when nobody else has it. `turn` notes a page that acted on no job (see `operation` of cancel, purge,
-- promote and replay: there the jobs and the record change in one call). `cancel` and `fail` end it, the latter
-- with `value` as the reason. `operation` is the id, for `turn` the page.
--
-- Returns "begun", "carried", "turned", "ended", "taken" (somebody else carries it), "full" (100 are under way) or
-- "missing", and the record as it stands then.
-- @flags allow-oom
-- @include lib/clock
-- @include lib/next_page
-- @include lib/operation_text
local operations, config = unpack(KEYS)
local now, verb, operation, carrier, value = unpack(ARGV)

local level, created = unpack(redis.call("HMGET", config, "level", "created"))
if (tonumber(level) or 1) > 1 then return redis.error_reply("LEVEL " .. level) end
local verbs = { begin = "begun", carry = "carried", turn = "turned", cancel = "ended", fail = "ended" }
if not verbs[verb] then return redis.error_reply("INVALID verb") end
if string.find(carrier, "[|\n]") or verb == "fail" and string.find(value, "\n", 1, true) then
  return redis.error_reply("INVALID carrier or value")
end
if operation == "" or verb ~= "turn" and (#operation > 64 or string.find(operation, "[^%w-]")) then
  return redis.error_reply("INVALID operation")
end
now = clock(now)
if not created then return { "missing", "" } end
local of, refused
if verb == "turn" then
  of, refused = next_page(operations, operation)
  if refused then return refused end
else
  of = operation_of(redis.call("HGET", operations, operation))
  if of then of.id = operation end
end

if verb == "begin" then
  if of then return { "begun", operation_text(of, tonumber(of.updated)) } end
  local gone, others = {}, {}
  if redis.call("HLEN", operations) >= 100 then others = redis.call("HSCAN", operations, "0", "COUNT", 500)[2] end
  local ended, under_way = {}, 0
  for i = 1, #others, 2 do
    local other = operation_of(others[i + 1])
    if other and other.state == "running" then under_way = under_way + 1 else ended[#ended + 1] = others[i] end
  end
  if under_way >= 100 then return { "full", "" } end
  table.sort(ended) -- oldest first
  for i = 1, #others / 2 - 99 do gone[i] = ended[i] end
  of = { id = operation, state = "running", page = 0, began = string.format("%.0f", now), carrier = carrier,
    until_ms = now + 15000, matched = 0, done = 0, cursor = "", error = "", spec = value }
  if #gone > 0 then redis.call("HDEL", operations, unpack(gone)) end
elseif not of then
  return { "missing", "" }
elseif of.state ~= "running" and verb ~= "turn" then
  return { "ended", operation_text(of, tonumber(of.updated)) }
elseif verb == "carry" then
  -- A clock that went back makes nobody wait longer than a span.
  if of.carrier ~= carrier and of.until_ms > now and of.until_ms <= now + 15000 then
    return { "taken", operation_text(of, tonumber(of.updated)) }
  end
  of.carrier, of.until_ms = carrier, now + 15000
elseif verb == "cancel" then
  of.state = "cancelled"
elseif verb == "fail" then
  of.state, of.error = "failed", value
else
  of.until_ms = now + 15000
end
local record = operation_text(of, now)
redis.call("HDEL", operations, "") -- a server that knows no flags lets HSET through after it
redis.call("HSET", operations, of.id, record)
return { verbs[verb], record }
