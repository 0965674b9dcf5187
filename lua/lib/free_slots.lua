-- @include lib/laned
-- @include lib/laned
-- Gives back the slots of jobs whose run has ended; each has id and flags (of its lease), and `good` where a breaker counts
-- how it ended. What waits for one of them is looked at again: then true, and the caller rings. The caller has read every
-- key (lib/laned).
local function free_slots(keys, list, now)
  -- @include lib/slot_of
  if not keys.limited or #list == 0 then return false end
  local members, again, named, told = {}, { 0, "q" }, { q = true }, {}
  for _, job in ipairs(list) do
    if not keys.counting then break end
    local its_type, its_group = slot_of(keys, job.id, job.flags, members)
    if keys.breakers and job.good ~= nil then
      told[#told + 1] = { type = string.sub(its_type, 2), mark = string.match(job.flags, " p:(%d+)"), good = job.good }
    end
    for _, scope in ipairs({ its_type, its_group }) do
      if not named[scope] then
        named[scope] = true
        again[#again + 1], again[#again + 2] = 0, scope
      end
    end
  end
  for from = 1, #members, 1000 do
    redis.call("ZREM", keys.slots, unpack(members, from, math.min(from + 999, #members)))
  end
  if #told > 0 then
    -- @include lib/judge
    judge(keys, told, now)
  end
  return redis.call("ZADD", keys.waits, "XX", "CH", unpack(again)) > 0
end
