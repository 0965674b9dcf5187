-- @include lib/state_of
-- @include lib/begin
-- @include lib/next_page
-- Begins a call that may be a page of an operation, "" for none: the time, the operation, and an error reply when the page
-- may not be carried out.
local function begin_page(keys, now, operation)
  now = begin(keys, now)
  local of, refused = next_page(keys.operations, operation)
  return now, of, refused
end
