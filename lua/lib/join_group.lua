-- Notes down jobs that have entered `dead`, each with id and fingerprint, under those that died alike. The caller has
-- read both keys, so that nothing here can fail.
local function join_group(keys, list, now)
  local members, groups, grown = {}, {}, {}
  for _, job in ipairs(list) do
    members[#members + 1] = 0
    members[#members + 1] = string.format("%s%015.0f%s", job.fingerprint, now, job.id)
    grown[job.fingerprint] = true
  end
  for alike in pairs(grown) do
    groups[#groups + 1] = string.format("%.0f", now)
    groups[#groups + 1] = alike
  end
  redis.call("ZADD", keys.dead_index, unpack(members))
  redis.call("ZADD", keys.dead_groups, unpack(groups))
end
