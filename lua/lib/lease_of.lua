-- A lease record as a table, or nil when there is none (or it is not one of ours). `asked` is why it was asked to stop, or
-- false, `asked_at` when (ms).
local function lease_of(text)
  if not text then return nil end
  local token, worker, started, ends, score, attempt, flags, bytes, asked, key =
    string.match(text, "^(%d+)|([^|]*)|(%d+)|(%d+)|([^|]*)|(%d+)|([^|]*)|(%d+)|(%d)|(.*)$")
  local id, at = string.match(key or "", "^(.*)|(%d+)$")
  if not token then return nil end
  return { token = token, worker = worker, started = started, ends = tonumber(ends), score = score,
    attempt = tonumber(attempt), flags = flags, bytes = tonumber(bytes),
    asked = asked == "2" and "overlap" or asked == "1" and "asked", key = id or key, asked_at = at }
end
