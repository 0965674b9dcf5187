-- The score of a job in an ended set: when it ended; negative when the job's own retention (second
-- value: until when) decides and not the queue's, so that the two kinds never hide each other.
local function ended_score(flags, now)
  local own = tonumber(string.match(flags, "^r(%d+)"))
  if own then return -now, now + own end
  return now, nil
end
