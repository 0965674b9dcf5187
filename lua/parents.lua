-- parents: what one waits for
--
-- Of a job, or of a flow (= before its id): what it waits for, a page of at most `limit` (1..1000) and about 4 MiB, in
-- order of state and id. `cursor` is what the page before answered, "" first. With `sign` only those that are still to end
-- ("?"), succeeded ("+") or ended otherwise ("-").
--
-- Returns the next cursor ("" at the end), how many are still to end, succeeded, and ended otherwise, then for each the id
-- (queue:key), the order of the last word about it ("" for none; of one that ended the time in us, about), the state
-- it ended in, and the result.
-- @flags no-writes
-- @include lib/standings
local awaits, parents = unpack(KEYS)
local id, sign, cursor, limit = unpack(ARGV)

limit = limit == "" and 100 or tonumber(limit)
if not (limit and limit >= 1 and limit <= 1000) then return redis.error_reply("BATCH limit is 1..1000") end
if not string.find(id, "^=?[%w._-]+$") then return redis.error_reply("INVALID id") end
if not string.find(sign, "^[?+-]?$") then return redis.error_reply("INVALID sign") end

local keys, reply, bytes = { awaits = awaits, parents = parents }, { "" }, 0
reply[2], reply[3], reply[4] = standings(keys, id)
local start = id .. " " .. sign
local first = cursor == "" and "[" .. start or "(" .. id .. " " .. cursor
local page = redis.call("ZRANGEBYLEX", awaits, first, "(" .. start .. (sign == "" and "\127" or "~"), "LIMIT", 0, limit)
for nth, member in ipairs(page) do
  local from = string.sub(member, #id + 3)
  local order, state, result = string.match(redis.call("HGET", parents, id .. " " .. from) or "", "^(%d+)|(%a+)\n(.*)$")
  bytes = bytes + #(result or "")
  for _, part in ipairs({ from, order or "", state or "", result or "" }) do reply[#reply + 1] = part end
  if nth == limit or bytes > 4194304 then
    reply[1] = string.sub(member, #id + 2)
    break
  end
end
return reply
