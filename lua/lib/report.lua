-- Writes one entry for up to 100 jobs to the event stream. `tokens` and `states` may be nil.
local function report(events, kind, worker, now, ids, tokens, states)
  for from = 1, #ids, 100 do
    local to = math.min(from + 99, #ids)
    redis.call("XADD", events, "MAXLEN", "~", 10000, "*", "kind", kind, "worker", worker,
      "at", string.format("%.0f", now), "ids", table.concat(ids, " ", from, to),
      "tokens", tokens and table.concat(tokens, " ", from, to) or "",
      "states", states and table.concat(states, " ", from, to) or "")
  end
end
