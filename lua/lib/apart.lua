-- Divides a large record (a job's, or a run's with its result) into its head and its body, so that the head can be read
-- alone: the head, with the body nil for a record of at most 4 KiB, which stays whole. `lines` is how many lines the head has.
-- The caller stores the body in `bodies`; a record that ends with its head has its body there.
local function apart(record, lines)
  if #record <= 4096 then return record, nil end
  local head, body = string.match(record, lines == 1 and "^([^\n]*\n)(.+)$" or "^([^\n]*\n[^\n]*\n)(.+)$")
  if not head then return record, nil end
  return head, body
end
