-- Claims an effect. KEYS: its entry. ARGV: the claimant, how long it holds the claim in ms.
local entry = redis.call('GET', KEYS[1])
if not entry then
  redis.call('SET', KEYS[1], 'held by ' .. ARGV[1], 'PX', ARGV[2])
  return 'granted'
end
return entry == 'done' and 'done' or 'held'
