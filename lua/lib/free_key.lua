-- Lets the unique key of a job that goes, which the head of its record names, go with it. One that is held for a time,
-- whatever becomes of its job, stays (unless `forget`), and so should the job's tombstone: answers until when, ms, else 0.
local function free_key(known, id, head, now, forget)
  local key = string.match(head or "", "^[^|\n]*|[^|\n]*|[^|\n]* u:([%w._-]+)")
  local entry = key and redis.call("HGET", known, "=" .. key)
  local holder, till, mode = string.match(entry or "", "^([^|]+)|(%d*)|([est])$")
  if holder ~= id then return 0 end
  if mode == "t" and not forget and tonumber(till) > now then return tonumber(till) end
  redis.call("HDEL", known, "=" .. key)
  return 0
end
