-- What is kept of a schedule's past (lib/schedule_of): its jobs that may not have ended, and its last twenty slots.
local function schedule_text(its)
  local head = string.format("%.0f|%.0f|%s|%s|%s", its.runs, its.skipped, its.last, its.ended and "1" or "",
    table.concat(its.open, " ", math.max(1, #its.open - 4)))
  local first = math.max(1, #its.lines - 19)
  return #its.lines > 0 and head .. "\n" .. table.concat(its.lines, "\n", first) or head
end
