-- Writes one entry for up to 100 jobs to the event stream. `tokens` and `states` may be nil.
local function report(events, kind, worker, now, ids, tokens, states)
  for from = 1, #ids, 100 do
    local to = math.min(from + 99, #ids)
    local fields = { "kind", kind, "at", string.format("%.0f", now), "ids", table.concat(ids, " ", from, to) }
    if worker ~= "" then fields[7], fields[8] = "worker", worker end
    if tokens then fields[#fields + 1], fields[#fields + 2] = "tokens", table.concat(tokens, " ", from, to) end
    if states then fields[#fields + 1], fields[#fields + 2] = "states", table.concat(states, " ", from, to) end
    redis.call("XADD", events, "MAXLEN", "~", 10000, "*", unpack(fields))
  end
end
