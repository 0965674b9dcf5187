-- @include lib/full_record
-- @include lib/edited
-- @include lib/apart
-- Stores a job with another payload, and its former one among its edits. `job` has id, record (what is to stand in `jobs`, with
-- the former payload where that is small), payload, crc and edits. The caller has read every key, so that nothing can fail.
local function edit_payload(keys, job, now)
  local record, edits = edited(full_record(keys, job.id, job.record), job.payload, job.crc, job.edits, now)
  local head, payload = apart(record, 2)
  redis.call("HSET", keys.jobs, job.id, head)
  if payload then
    redis.call("HSET", keys.bodies, job.id, payload)
  else
    redis.call("HDEL", keys.bodies, job.id)
  end
  redis.call("HSET", keys.notes, job.id .. ":edits", edits)
end
