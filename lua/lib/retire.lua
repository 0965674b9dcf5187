-- @include lib/join_group
-- @include lib/excess
-- @include lib/trim
-- @include lib/signal
-- @include lib/ended_score
-- @include lib/course_of
-- @include lib/course_text
-- Puts jobs, out of their old sets already, into the ended set `state`, and keeps that state's retention.
-- Each has id, flags (of its record) and bytes. The caller has read every key, so that nothing here can fail.
local function retire(keys, state, list, now)
  if #list == 0 then return end
  local gone, bytes, gross, ids = {}, 0, 0, {}
  for i, job in ipairs(list) do
    ids[i] = job.id
    local score, expiry = ended_score(job.flags, now)
    redis.call("ZADD", keys[state], string.format("%.0f", score), job.id)
    if expiry then
      redis.call("ZADD", keys.expiries, string.format("%.0f", expiry), job.id)
    elseif string.find(job.flags, " [dx]:") then
      redis.call("ZREM", keys.expiries, job.id)
    end
    if expiry and expiry <= now then gone[#gone + 1] = job.id end
    gross = gross + job.bytes
    if not expiry then bytes = bytes + job.bytes end
  end
  signal(keys, ids, state, now)
  if state == "dead" then join_group(keys, list, now) end
  tally(keys.counters, { [state] = #list, ["bytes_" .. state] = bytes, bytes_unfinished = -gross })
  drop(keys, state, gone, now)
  local field = "keep_" .. state .. "_"
  local keep = redis.call("HMGET", keys.config, field .. "age", field .. "count", field .. "bytes")
  local beyond = excess(keys, state, keep, now, 0, 0)
  if beyond then trim(keys, state, beyond, now, math.max(100, #list)) end
end
