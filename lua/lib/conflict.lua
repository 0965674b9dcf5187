-- Who holds the unique key of `lock`, as a table with its id, or nil. Where the new request `asked` changes it, as
-- `lock.conflict` has it, with what lib/supersede is to do in `change`; `unique` keeps what was done in this call. Only reads.
local function conflict(keys, unique, lock, asked, place)
  -- @include lib/begin
  -- @include lib/holder
  -- @include lib/superseded
  local fresh = unique.holders[lock.key]
  if fresh then return { id = fresh }, place end
  if not unique.read then unique.read = begin(keys, asked.now) end
  local changes = lock.conflict == "replace" or lock.conflict == "debounce"
  if changes and asked.call then
    -- A former try of this very call, whose reply was lost, may have changed a job that has started since.
    local id = string.match(redis.call("HGET", keys.known, "=" .. lock.key) or "", "^([^|]+)|")
    local flags = string.match(id and redis.call("HGET", keys.jobs, id) or "", "^[^|\n]*|[^|\n]*|([^|\n]*)|") or ""
    if string.find(flags .. " ", asked.call .. " ", 1, true) then return { id = id, changed = true }, place end
  end
  local held, change = holder(keys, lock.key, asked.now), nil
  if not held then return nil, place end
  if changes and held.waits and not unique.changed[held.id] then
    if not asked.due and lock.conflict == "replace" and held.state == "scheduled" then asked.due = asked.now end
    change, place = superseded(keys, held, asked, place)
    unique.changed[held.id] = true
    if change and not change.same then table.insert(unique.changes, change) end
  end
  return { id = held.id, changed = change }, place
end
