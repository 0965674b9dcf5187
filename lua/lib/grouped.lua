-- Where a dead job stands in `dead_index`: its fingerprint, when it died, its id; nil for one that is not dead. "" when its
-- course names no fingerprint.
local function grouped(keys, id)
  local died = tonumber(redis.call("ZSCORE", keys.dead, id) or nil)
  if not died then return nil end
  local line = string.match(redis.call("HGET", keys.attempts, id) or "", "^[^\n]*")
  local alike = string.match(line, "|(%x+)$") or ""
  return #alike == 16 and string.format("%s%015.0f%s", alike, math.abs(died), id) or ""
end
