-- The bytes of a job's complete record, of which `record` is what stands in `jobs`; a large payload is measured, not read.
local function weight_of(keys, id, record)
  if string.byte(record, -1) ~= 10 then return #record end
  return #record + redis.call("HSTRLEN", keys.bodies, id)
end
