-- @include lib/course_of
-- @include lib/course_text
-- @include lib/fingerprint
-- @include lib/join_group
-- Notes down a dead job that stands in no group. What it died of is read out of its last error as text: a damaged one
-- must not stop a repair. The caller has read every key, so that nothing here can fail.
local function regroup(keys, id)
  local course = course_of(redis.call("HGET", keys.attempts, id))
  local died = math.abs(tonumber(redis.call("ZSCORE", keys.dead, id)))
  if #course.alike ~= 16 then
    local type = string.match(redis.call("HGET", keys.jobs, id) or "", "^([^|\n]*)|") or ""
    local last = string.match(course.errors, "[^\n]*$")
    local kind, message = string.match(last, '"kind":"(.-)","message":"(.-)","at":')
    local function plain(text) return (string.gsub(string.gsub(text or "", "\\[nrt]", " "), "\\(.)", "%1")) end
    course.alike = fingerprint(type, plain(kind), plain(message))
    redis.call("HSET", keys.attempts, id, course_text(course))
  end
  join_group(keys, { { id = id, fingerprint = course.alike } }, died)
end
