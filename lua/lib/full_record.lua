-- The complete record of a job: a large payload stands apart from it, in `bodies` (lib/apart).
local function full_record(keys, id, record)
  if string.byte(record, -1) ~= 10 then return record end
  return record .. (redis.call("HGET", keys.bodies, id) or "")
end
