-- The place in line that a score was made of: score + rank x step. When the queue's step has changed since, that is no
-- time of the job's; then it is the time (ms) at which the job was created.
local function place_of(score, rank, step, created, micros)
  local place = score + rank * step
  if place < created * 1000 or place > micros + 1000000 then return created * 1000 end
  return place
end
