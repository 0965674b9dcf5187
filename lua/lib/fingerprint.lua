-- Sixteen hexadecimal digits, the same for failures of one type and kind whose messages differ in numbers and ids only.
-- Out of the message's first 1,000 bytes goes every word with a digit in it (42, 30s, 0x7f, cus_8fh2, a UUID), every
-- address with an @, and what stands between two of these by a point, comma, colon or slash alone; white space counts as
-- one. A word goes in two passes, from its first digit on, then (the text turned round) what stands before: so every
-- pattern is linear in the text, and none calls back. Two hashes of the first 300 bytes of what is left, four at a time,
-- each modulo a prime below 2^32, so that doubles are exact.
local function fingerprint(type, kind, message)
  local text = " " .. string.sub(message, 1, 1000)
  if string.find(text, "@", 1, true) then
    text = string.gsub(text, "%f[^%s\"'<>(),;][^@%s\"'<>(),;]+@[^%s\"'<>(),;]+", "\1")
  end
  text = string.reverse(string.gsub(text, "%d[%w_\128-\255-]*", "\1"))
  text = string.gsub(text, "\1[%a_\128-\255-]*", "\1")
  text = string.gsub(string.gsub(text, "\1[\1.,:/]*\1", "\1"), "%s+", " ")
  text = string.gsub(string.gsub(text, "^ ", ""), " $", "")
  text = string.sub(text, -300) .. "\0" .. string.sub(kind, 1, 200) .. "\0" .. type .. "\0\0\0"
  local bytes, one, other = { string.byte(text, 1, -1) }, 0, 0
  for i = 4, #bytes, 4 do
    local four = ((bytes[i - 3] * 256 + bytes[i - 2]) * 256 + bytes[i - 1]) * 256 + bytes[i]
    one, other = (one * 1000003 + four) % 4294967291, (other * 786433 + four) % 4294967279
  end
  return string.format("%08x%08x", one, other)
end
