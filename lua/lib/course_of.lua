-- What is kept of a job's former runs, as a table; zeros where nothing is kept yet.
local function course_of(text)
  local line, errors = string.match(text or "", "^([^\n]*)\n?(.*)$")
  local attempt, crashes, snoozes, token, verb, to, started, worker, reason, unhandled, since, alike =
    string.match(line, "^(%d+)|(%d+)|(%d+)|(%d+)|(%a*)|(%a*)|(%d*)|([^|]*)|([%a_]*)|(%d+)|(%d+)|?(%x*)$")
  return { attempt = tonumber(attempt) or 0, crashes = tonumber(crashes) or 0, snoozes = tonumber(snoozes) or 0,
    token = token or "0", verb = verb or "", to = to or "", started = started or "", worker = worker or "",
    reason = reason or "", unhandled = tonumber(unhandled) or 0, since = tonumber(since) or 0, alike = alike or "",
    errors = attempt and errors or "" }
end
