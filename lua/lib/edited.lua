-- A record with another payload, and the list of its former ones with the present one at its end, the
-- newest ten: "<ms> <length>" and a newline before each payload's bytes.
local function edited(record, payload, crc, edits, now)
  local line, header, former = string.match(record, "^([^\n]*)\n([^\n]*)\n(.*)$")
  if not line then return record, edits end
  local list, at = {}, 1
  edits = edits or ""
  while #list < 100 and at <= #edits do
    local head, length = string.match(edits, "^(%d+ (%d+)\n)", at)
    if not head then break end
    list[#list + 1] = string.sub(edits, at, at + #head + tonumber(length) - 1)
    at = at + #head + tonumber(length)
  end
  list[#list + 1] = string.format("%.0f %.0f\n", now, #former) .. former
  while #list > 10 do table.remove(list, 1) end
  return string.gsub(line, "|[^|]*$", "|") .. crc .. "\n" .. header .. "\n" .. payload, table.concat(list)
end
