-- Notes down jobs that have entered `dead`, each with id and fingerprint, under those that died alike. The caller has
-- read both keys, so that nothing here can fail.
local function group(keys, list, now)
  local alike, groups = {}, {}
  for _, job in ipairs(list) do
    alike[#alike + 1] = 0
    alike[#alike + 1] = string.format("%s%015.0f%s", job.fingerprint, now, job.id)
    groups[#groups + 1] = string.format("%.0f", now)
    groups[#groups + 1] = job.fingerprint
  end
  redis.call("ZADD", keys.dead_index, unpack(alike))
  redis.call("ZADD", keys.dead_groups, unpack(groups))
end
