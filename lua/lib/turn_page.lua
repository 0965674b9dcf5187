-- @include lib/begin_page
-- @include lib/operation_text
-- Writes down that a page of an operation was carried out, in the same call that did it; nothing for nil. The caller has
-- read the key, so that nothing here can fail.
local function turn_page(operations, of, done, now)
  if not of then return end
  of.done, of.until_ms = of.done + done, now + 15000
  redis.call("HDEL", operations, "") -- a server that knows no flags lets HSET through after it
  redis.call("HSET", operations, of.id, operation_text(of, now))
end
