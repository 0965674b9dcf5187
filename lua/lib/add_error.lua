-- Appends a line to a course's errors: the first and the newest 49 stay, texts are cut at 64 KiB.
local function add_error(course, attempt, kind, message, trace, now, next)
  local function quoted(text)
    if #text > 65536 then
      -- Not within a character: what follows the cut does not go on with one.
      local cut = 65500
      for _ = 1, 3 do
        local byte = string.byte(text, cut + 1)
        if byte >= 128 and byte < 192 then cut = cut - 1 end
      end
      text = string.sub(text, 1, cut) .. " [cut at 64 KiB]"
    end
    return cjson.encode(text)
  end
  local line = string.format('{"attempt":%.0f,"kind":%s,"message":%s,"at":%.0f,"next":%s', attempt, quoted(kind),
    quoted(message), now, quoted(next))
  line = line .. (trace ~= "" and ',"trace":' .. quoted(trace) or "") .. "}"
  if course.errors == "" then
    course.errors = line
    return
  end
  local kept = course.errors
  if select(2, string.gsub(kept, "\n", "\n")) >= 49 then
    kept = string.gsub(kept, "\n[^\n]*", "", 1)
  end
  course.errors = kept .. "\n" .. line
end
