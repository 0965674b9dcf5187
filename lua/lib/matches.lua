-- Whether a job passes a list's filters; "" lets all pass. Names hold no quotes, so text is found as it stands. `error`
-- is a kind that one of its errors has, `kind` the kind of the last; it was created before `before` (ms, nil: whenever).
local function matches(jobs, attempts, id, asked, before)
  if asked.type ~= "" or asked.group ~= "" or asked.tag ~= "" or before then
    local kind, created, header =
      string.match(redis.call("HGET", jobs, id) or "", "^([^|\n]*)|[^|\n]*|[^|\n]*|(%d*)|[^\n]*\n([^\n]*)")
    if asked.type ~= "" and kind ~= asked.type then return false end
    if before and (tonumber(created) or math.huge) >= before then return false end
    header = header or ""
    if asked.group ~= "" and not string.find(header, '"group":"' .. asked.group .. '"', 1, true) then return false end
    local tags = string.match(header, '"tags":%[([^%]]*)%]') or ""
    if asked.tag ~= "" and not string.find(tags, '"' .. asked.tag .. '"', 1, true) then return false end
  end
  if asked.error ~= "" or asked.kind ~= "" then
    local runs = redis.call("HGET", attempts, id) or ""
    if asked.error ~= "" and not string.find(runs, '"kind":' .. cjson.encode(asked.error) .. ",", 1, true) then return false end
    -- Without an error it died of its reason.
    local last = string.match(runs, "\n([^\n]*)$") or '"kind":"' .. (string.match(runs, "|([%a_]*)|%d+|%d+|?%x*$") or "") .. '",'
    if asked.kind ~= "" and not string.find(last, '"kind":' .. cjson.encode(asked.kind) .. ",", 1, true) then return false end
  end
  return true
end
