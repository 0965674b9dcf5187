-- A schedule as it stands, its next slot (ms, nil for none) and what became of its last ones; nil where there is no such one.
local function schedule_of(schedules, fires, name)
  local record, text = unpack(redis.call("HMGET", schedules, name, ":" .. name))
  local slot = redis.call("ZSCORE", fires, name)
  if not record then return nil end
  local version, paused, most, rest = string.match(record, "^(%d+)|%d+|(%d?)|(%d*)|([^\n]*)")
  local runs, skipped, last, ended, open, lines = string.match(text or "", "^(%d+)|(%d+)|(%d*)|(%d?)|([^|\n]*)\n?(.*)$")
  local its = { version = tonumber(version) or 0, paused = paused == "1", most = tonumber(most or nil), rest = rest or "",
    header = string.match(record, "^[^\n]*\n([^\n]*)") or "", slot = tonumber(slot or nil), runs = tonumber(runs) or 0,
    skipped = tonumber(skipped) or 0, last = last or "", ended = ended == "1", open = {}, lines = {} }
  for key in string.gmatch(open or "", "%S+") do table.insert(its.open, key) end
  for line in string.gmatch(lines or "", "[^\n]+") do table.insert(its.lines, line) end
  return its
end
