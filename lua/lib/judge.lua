-- @include lib/report
-- Tells the breakers of their types how runs ended: each has type, good, and of a probe the mark that its claim gave it.
--
-- A closed breaker counts in windows: what the window before had counts by the share of it that is not over yet. It opens
-- when enough were counted and enough of them failed. From then on only its own probes count (the mark names until when it was
-- open): one that fails opens it again, and it closes when as many as it wants did well. The caller has read every key.
local function judge(keys, runs, now)
  local known, list = {}, {}
  local function breaker_of(type)
    local set, declared = unpack(redis.call("HMGET", keys.types, type, ":" .. type))
    local function said(record) return string.match(record or "", "^%d*|[^|\n]*|[^|\n]*|[^|\n]*|[^|\n]*|[^|\n]*|([^|\n]+)") end
    local percent, window, minimum, open, probes =
      string.match(said(set) or said(declared) or "", "^(%d+);(%d+);(%d+);(%d+);(%d+)$")
    if not percent then return false end
    local state = redis.call("HGET", keys.meters, "breaker " .. type) or ""
    local mark, passed = string.match(state, "^open|(%d+)|(%d+)|")
    list[#list + 1] = { type = type, percent = tonumber(percent), window = tonumber(window), minimum = tonumber(minimum),
      open = tonumber(open), probes = tonumber(probes), state = state, mark = mark, passed = tonumber(passed or nil),
      good = 0, bad = 0 }
    return list[#list]
  end
  for _, run in ipairs(runs) do
    if known[run.type] == nil then known[run.type] = breaker_of(run.type) end
    local its = known[run.type]
    if its and (not its.mark or its.mark == run.mark) then
      if run.good then its.good = its.good + 1 else its.bad = its.bad + 1 end
    end
  end

  local function set(its, ...)
    redis.call("HSET", keys.meters, "breaker " .. its.type, string.format(...))
  end
  local function open(its, good, bad)
    set(its, "open|%.0f|0|%.0f|%.0f", now + its.open, good, bad)
    report(keys.events, "breaker", "", now, { its.type }, nil, { "open" })
  end
  for _, its in ipairs(list) do
    if its.mark then
      local passed = its.passed + its.good
      if its.bad > 0 then
        open(its, passed, its.bad)
      elseif passed >= its.probes then
        redis.call("HDEL", keys.meters, "breaker " .. its.type)
        report(keys.events, "breaker", "", now, { its.type }, nil, { "closed" })
      elseif its.good > 0 then
        set(its, "open|%s|%.0f|%s", its.mark, passed, string.match(its.state, "^open|%d+|%d+|(%d+|%d+)") or "0|0")
      end
    elseif its.good + its.bad > 0 then
      local since, good, bad, former_good, former_bad =
        string.match(its.state, "^closed|(%d+)|(%d+)|(%d+)|(%d+)|(%d+)$")
      since, good, bad = tonumber(since or now), tonumber(good or 0), tonumber(bad or 0)
      former_good, former_bad = tonumber(former_good or 0), tonumber(former_bad or 0)
      if since > now or now - since >= 2 * its.window then
        since, good, bad, former_good, former_bad = now, 0, 0, 0, 0
      elseif now - since >= its.window then
        since, good, bad, former_good, former_bad = since + its.window, 0, 0, good, bad
      end
      good, bad = good + its.good, bad + its.bad
      local share = 1 - (now - since) / its.window
      local well, wrong = good + former_good * share, bad + former_bad * share
      if well + wrong >= its.minimum and wrong * 100 >= its.percent * (well + wrong) then
        open(its, well, wrong)
      else
        set(its, "closed|%.0f|%.0f|%.0f|%.0f|%.0f", since, good, bad, former_good, former_bad)
      end
    end
  end
end
