-- Fails with WRONGTYPE, before anything is written, when a key that is only written is of another type.
local function probe(command, ...)
  for _, key in ipairs({ ... }) do redis.call(command, key) end
end
