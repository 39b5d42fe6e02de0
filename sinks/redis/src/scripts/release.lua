-- Gives a claim back, unless it ran out and another holds it, or the effect is done. KEYS: its entry. ARGV: the
-- claimant.
if redis.call('GET', KEYS[1]) == 'held by ' .. ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
