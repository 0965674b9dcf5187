-- @include lib/slot_of
-- Adds to `members` what stands in `slots` for a running job by the record of its lease (false for one that is lost: then by
-- the job's own), and answers them.
local function slots_of(keys, id, lease, members)
  slot_of(keys, id, string.match(lease or "", "^%d+|[^|]*|%d+|%d+|[^|]*|%d+|([^|]*)|") or "", members)
  return members
end
