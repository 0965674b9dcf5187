-- A lease record as a table, or nil when there is none (or it is not one of ours).
local function lease_of(text)
  if not text then return nil end
  local token, worker, started, ends, score, attempt, flags, bytes, asked, key =
    string.match(text, "^(%d+)|([^|]*)|(%d+)|(%d+)|([^|]*)|(%d+)|([^|]*)|(%d+)|(%d)|(.*)$")
  if not token then return nil end
  return { token = token, worker = worker, started = started, ends = tonumber(ends), score = score,
    attempt = tonumber(attempt), flags = flags, bytes = tonumber(bytes), asked = asked == "1", key = key }
end
