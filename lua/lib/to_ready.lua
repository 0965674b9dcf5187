-- @include lib/line_up
-- Puts jobs into `ready`, and into their lanes where the queue has any; each has id, score (text) and, for the lanes, its
-- record. The caller has read every key (lib/laned).
local function to_ready(keys, list)
  if #list == 0 then return end
  local scores = {}
  for i, job in ipairs(list) do scores[2 * i - 1], scores[2 * i] = job.score, job.id end
  redis.call("ZADD", keys.ready, unpack(scores))
  if keys.laned then line_up(keys, list) end
end
