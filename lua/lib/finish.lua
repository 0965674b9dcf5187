-- @include lib/begin
-- @include lib/settle
-- @include lib/announce
-- @include lib/retire
-- The write phase of a settlement that is no ack: moves the jobs, keeps the retention of dead and cancelled,
-- counts, rings and reports. `begin` has read every key, so that nothing here can fail.
local function finish(keys, verb, worker, moves, now)
  if #moves == 0 then return end
  local ended, freed = settle(keys, moves, now)
  for state, list in pairs(ended) do retire(keys, state, list, now) end
  local ids, tokens, states, runnable, due = {}, {}, {}, freed, nil
  for i, move in ipairs(moves) do
    ids[i], tokens[i], states[i] = move.id, move.token, move.state
    runnable = runnable or move.state == "ready"
    if move.due then due = math.min(due or move.due, move.due) end
  end
  tally(keys.counters, { [verb] = #moves })
  announce(keys, verb, worker, now, { ids = ids, tokens = tokens, states = states, runnable = runnable, due = due })
end
