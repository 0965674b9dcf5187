-- What of a limited scope (lib/scopes_of) lets nothing start now: codes, each with the time when that is over (ms, nil where
-- nobody knows).
local function hindrances(its, now, micros)
  local found = {}
  if its.until_ms >= 9007199254740991 then
    found[1] = { string.sub(its.name, 1, 1) == "t" and "type_paused" or "group_paused" }
  elseif its.until_ms > now and its.until_ms ~= its.open then
    found[1] = { "rate_limited", its.until_ms }
  end
  if its.open then found[#found + 1] = { "breaker_open", its.open } end
  -- Of a breaker that is half open the slots are those of its probes.
  if its.left <= 0 then found[#found + 1] = { its.probe and "breaker_open" or "concurrency_limited" } end
  if its.every and its.tat - micros > its.slack then
    found[#found + 1] = { "rate_limited", math.ceil((its.tat - its.slack) / 1000) }
  end
  return found
end
