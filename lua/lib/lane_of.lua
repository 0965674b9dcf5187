-- The lane of a job, by its record: its type and its group ("" for none); and what its start uses of a rate ("" for 1).
-- What is damaged has a lane of its own.
local function lane_of(record)
  local type, flags = string.match(record or "", "^(%w[%w._-]*)|[^|\n]*|([^|\n]*)|")
  if not type then return "-", "", "" end
  if flags == "" then return type, "", "" end
  return type, string.match(flags, " g:(%S+)") or "", string.match(flags, " c:(%d+)") or ""
end
