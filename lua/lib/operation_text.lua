-- The record of an operation.
local function operation_text(of, now)
  return string.format("%s|%.0f|%s|%.0f|%s|%.0f|%.0f|%.0f|%s\n%s\n%s", of.state, of.page, of.began, now, of.carrier,
    of.until_ms, of.matched, of.done, of.cursor, of.error, of.spec)
end
