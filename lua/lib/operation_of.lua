-- The record of an operation as a table, or nil when there is none (or it is not one of ours).
local function operation_of(text)
  local state, page, began, updated, carrier, until_ms, matched, done, cursor, error, spec =
    string.match(text or "", "^(%a+)|(%d+)|(%d+)|(%d+)|([^|]*)|(%d+)|(%d+)|(%d+)|([^\n]*)\n([^\n]*)\n(.*)$")
  if not state then return nil end
  return { state = state, page = tonumber(page), began = began, updated = updated, carrier = carrier,
    until_ms = tonumber(until_ms), matched = tonumber(matched), done = tonumber(done),
    cursor = cursor, error = error, spec = spec }
end
