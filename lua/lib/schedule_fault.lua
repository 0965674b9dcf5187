-- @include lib/schedule_of
-- What is wrong with a schedule, of which this is a field of `schedules` or its name in `fires`, as a sentence, or nil; with
-- `repair` it is put right: one that is due at no time gets the slot 0, from which whoever fires finds its next one. The
-- caller has read both keys.
local function schedule_fault(keys, member, repair)
  local name = string.gsub(member, "^[:=]", "")
  local its = schedule_of(keys.schedules, keys.fires, name)
  if not its or its.version == 0 then
    if repair then
      redis.call("HDEL", keys.schedules, name, ":" .. name, "=" .. name)
      redis.call("ZREM", keys.fires, name)
    end
    return its and "is no schedule that can be read" or "belongs to no schedule"
  end
  if name ~= member then return nil end
  local rests = its.paused or its.ended
  if rests and its.slot then
    if repair then redis.call("ZREM", keys.fires, name) end
    return "is due although it is paused or has ended"
  end
  if not rests and not its.slot then
    if repair then redis.call("ZADD", keys.fires, 0, name) end
    return "is never due"
  end
  return nil
end
