-- @include lib/weight_of
-- @include lib/lease_of
-- The record of a lease.
local function lease_text(lease)
  return table.concat({ lease.token, lease.worker, lease.started, string.format("%.0f", lease.ends), lease.score,
    lease.attempt, lease.flags, lease.bytes, lease.asked == "overlap" and 2 or lease.asked and 1 or 0, lease.key,
    lease.asked_at }, "|")
end
