-- Moves counters by each effect once.
-- KEYS, per operation: the counter, its ledger (identity -> when it was counted, in ms).
-- ARGV: ledger in ms; per operation: identity, by.
local call, keys, argv = redis.call, KEYS, ARGV
local ledger = argv[1]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

for key = 1, #keys, 2 do
  local counter, processed, at = keys[key], keys[key + 1], key + 1
  if not call('ZSCORE', processed, argv[at]) then
    -- The one that may fail comes first: an effect is never in the ledger and not in the counter.
    call('INCRBY', counter, argv[at + 1])
    call('ZADD', processed, now, argv[at])
    local expired = call('ZRANGE', processed, '-inf', now - ledger, 'BYSCORE', 'LIMIT', 0, 10)
    if #expired > 0 then
      call('ZREM', processed, unpack(expired))
    end
    -- Never earlier than what another sink, with a longer ledger, has set.
    if call('PTTL', processed) < tonumber(ledger) then
      call('PEXPIRE', processed, ledger)
    end
  end
end
return #keys / 2
