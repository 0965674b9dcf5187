-- @include lib/forsake
-- Lets go a flow with its list of jobs, up to 200 pages of it a call; the rest is left to the sweeps. The caller has read
-- every key.
local function disband(keys, flow, now)
  local pages = {}
  for nth = 0, 199 do pages[nth + 1] = flow .. " " .. string.format("%06.0f", nth) end
  redis.call("HDEL", keys.flows, flow, unpack(pages))
  forsake(keys, "=" .. flow, now)
end
