-- Whether a job passes a list's filters; "" lets all pass. Names hold no quotes, so text is found as it stands.
local function matches(jobs, attempts, id, type, group, tag, error_kind)
  if type ~= "" or group ~= "" or tag ~= "" then
    local kind, header = string.match(redis.call("HGET", jobs, id) or "", "^([^|\n]*)|[^\n]*\n([^\n]*)")
    if type ~= "" and kind ~= type then return false end
    header = header or ""
    if group ~= "" and not string.find(header, '"group":"' .. group .. '"', 1, true) then return false end
    local tags = string.match(header, '"tags":%[([^%]]*)%]') or ""
    if tag ~= "" and not string.find(tags, '"' .. tag .. '"', 1, true) then return false end
  end
  if error_kind ~= "" then
    local runs = redis.call("HGET", attempts, id) or ""
    if not string.find(runs, '"kind":' .. cjson.encode(error_kind) .. ",", 1, true) then return false end
  end
  return true
end
