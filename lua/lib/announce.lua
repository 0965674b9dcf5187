-- @include lib/ring
-- @include lib/report
-- Tells of a transition: the bell for whoever waits for work, the event stream for whoever watches.
local function announce(keys, kind, worker, now, list)
  ring(keys, now, list.runnable, list.due)
  report(keys.events, kind, worker, now, list.ids, list.tokens, list.states)
end
