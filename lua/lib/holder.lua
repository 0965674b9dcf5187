-- @include lib/state_of
-- @include lib/lapses
-- Who holds a unique key, as its entry in `known` has it (`id|until|mode`); nil for nobody. What the entry says is held
-- against where the job stands: mode "e" holds it until the job ends, "s" until it starts, "t" until that time alone, as
-- long as the job is known. So nothing has to give a key back, however a job starts or ends.
-- One that waits beyond its deadline will not run: it holds nothing, also before the sweep ends it.
local function holder(keys, key, now)
  local entry = redis.call("HGET", keys.known, "=" .. key)
  local id, till, mode = string.match(entry or "", "^([^|]+)|(%d*)|([est])$")
  if not id or till ~= "" and tonumber(till) <= now then return nil end
  local state, score, ended = state_of(keys, id)
  local record = state and redis.call("HGET", keys.jobs, id) or ""
  local head = state and record or string.match(redis.call("HGET", keys.known, id) or "", "\n(.*)$") or ""
  -- An id may be taken anew, by a job without this key.
  if string.match(head, "^[^|\n]*|[^|\n]*|[^|\n]* u:([%w._-]+)") ~= key then return nil end
  local waits = state == "ready" or state == "scheduled" or state == "retrying" or state == "blocked"
  if waits then
    local flags = string.match(head, "^[^|\n]*|[^|\n]*|([^|\n]*)|")
    local history = redis.call("HGET", keys.attempts, id) or ""
    local over = lapses(flags, tonumber(string.match(history, "^(%d+)|")) or 0)
    if over and over <= now then return nil end
  end
  if waits or mode == "t" and (state or ended) or mode == "e" and state == "running" then
    return { id = id, state = state or ended, score = score, record = record, waits = waits }
  end
  return nil
end
