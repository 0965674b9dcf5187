-- @include lib/operation_of
-- The operation of which this call is a page, nil when it is none's; or nil and an error reply when it may not go on:
-- it has ended, or somebody else has carried out this page. `text` is `<id>|<page>|<matched>|<state>|<cursor>`: the
-- number of the page, how many were found for it, the operation's state after it, and where the next one begins.
local function next_page(operations, text)
  if text == "" then return nil end
  local id, page, matched, state, cursor = string.match(text, "^([%w-]+)|(%d+)|(%d+)|(%a+)|([^\n]*)$")
  if not id or state ~= "running" and state ~= "done" then return nil, redis.error_reply("INVALID operation") end
  local of = operation_of(redis.call("HGET", operations, id))
  if not of or of.state ~= "running" or of.page ~= tonumber(page) then
    return nil, redis.error_reply("PAGE of the operation is not its next")
  end
  of.id, of.page, of.matched, of.state, of.cursor = id, of.page + 1, of.matched + tonumber(matched), state, cursor
  return of
end
