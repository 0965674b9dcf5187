-- @include lib/place_of
-- What lib/revise is to do so that a job that waits, found by its unique key, is as the new request `asked` has it. Its id,
-- its creation and its fingerprint stay: it is still the answer to the request that made it. nil for a job of another
-- type, group or cost, which waits in another line, and where one of the two waits for other jobs.
-- Answers the change and the place in line that was given last.
local function superseded(keys, held, asked, place)
  local now, micros, step = asked.now, asked.micros, asked.step
  local kind, flags, created, former, fingerprint, crc, body =
    string.match(held.record, "^([^|\n]*)|[^|\n]*|([^|\n]*)|([^|\n]*)|([^|\n]*)|([^|\n]*)|([^\n]*)\n[^\n]*\n(.*)$")
  if kind ~= asked.kind or string.find(flags .. asked.flags, " a:", 1, true) then return nil, place end
  for _, rule in ipairs({ " g:(%S+)", " c:(%S+)" }) do
    if string.match(flags, rule) ~= string.match(asked.flags, rule) then return nil, place end
  end
  local change = { id = held.id, from = held.state, to = held.state, score = held.score, payload = "", crc = asked.crc,
    over = asked.over, edits = redis.call("HGET", keys.notes, held.id .. ":edits") }
  local rank, due = asked.rank, asked.due
  if held.state == "blocked" then due = nil end
  if held.state == "ready" and rank ~= (tonumber(former) or 0) then
    change.score = place_of(held.score, tonumber(former) or 0, step, tonumber(created) or now, micros) - rank * step
  end
  if due and due > now then
    change.to, change.score, change.due = held.state == "ready" and "scheduled" or held.state, due * 1000, due
  elseif due and held.state ~= "ready" then
    place = math.max(place + 1, micros)
    change.to, change.score = "ready", place - rank * step
  end
  -- A request that is repeated brings the same payload: that is no edit.
  local stands = body
  if body == "" and redis.call("HSTRLEN", keys.bodies, held.id) == #asked.payload then
    stands = redis.call("HGET", keys.bodies, held.id)
  end
  if stands ~= asked.payload then change.payload = asked.payload end
  change.record = table.concat({ kind, asked.limit, asked.flags, created, rank ~= 0 and rank or "", fingerprint, crc }, "|")
    .. "\n" .. asked.header .. "\n" .. body
  change.same = change.payload == "" and change.record == held.record and change.to == held.state and change.score == held.score
  return change, place
end
