-- @include lib/grouped
-- Strikes out jobs that are about to leave `dead`: they stand there still, with their courses. The caller has read every
-- key, so that nothing here can fail.
local function ungroup(keys, ids)
  local members, left = {}, {}
  for _, id in ipairs(ids) do
    local member = grouped(keys, id) or ""
    if member ~= "" then
      members[#members + 1] = member
      left[string.sub(member, 1, 16)] = true
    end
  end
  if #members > 0 then redis.call("ZREM", keys.dead_index, unpack(members)) end
  for alike in pairs(left) do
    if #redis.call("ZRANGEBYLEX", keys.dead_index, "[" .. alike, "(" .. alike .. ":", "LIMIT", 0, 1) == 0 then
      redis.call("ZREM", keys.dead_groups, alike)
    end
  end
end
