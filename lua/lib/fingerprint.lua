-- Sixteen hexadecimal digits, the same for failures of one type and kind whose messages differ in numbers and ids only.
-- Out of the message's first 1,000 bytes goes every word with a digit in it (42, 30s, 0x7f, cus_8fh2, a UUID), every
-- address with an @, and what stands between two of these by a point, comma, colon or slash alone; white space counts as
-- one. Two hashes of the first 300 bytes of what is left, each modulo a prime below 2^32, so that doubles are exact.
local function fingerprint(type, kind, message)
  local text = string.gsub(string.sub(message, 1, 1000), "[^%s\"'<>(),;]+", function(token)
    if string.find(token, "^[^@]+@.") then return "#" end
  end)
  text = string.gsub(text, "[%w_\128-\255-]+", function(word)
    if string.find(word, "%d") then return "#" end
  end)
  text = string.gsub(string.gsub(text, "#[#.,:/]*#", "#"), "%s+", " ")
  text = string.sub(string.gsub(text, "^ ", ""), 1, 300)
  text = type .. "\0" .. string.sub(kind, 1, 200) .. "\0" .. string.gsub(text, " $", "")
  local one, other = 0, 0
  for _, byte in ipairs({ string.byte(text, 1, -1) }) do
    one, other = (one * 257 + byte) % 4294967291, (other * 65599 + byte) % 4294967279
  end
  return string.format("%08x%08x", one, other)
end
