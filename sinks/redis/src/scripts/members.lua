-- Puts members into sets and out of them: the higher version wins, at equal versions the add.
-- KEYS, per operation: the set (all scores 0), the versions (member -> version), the removed (member -> end of
-- life of its version in ms).
-- ARGV: ledger in ms; per operation: 'add' | 'remove', member, version.
local call, keys, argv = redis.call, KEYS, ARGV
local ledger = argv[1]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Never earlier than what another sink, with a longer ledger, has set.
local function expire(name)
  if call('PTTL', name) < tonumber(ledger) then
    call('PEXPIRE', name, ledger)
  end
end

local at = 2
for key = 1, #keys, 3 do
  local set, versions, removed = keys[key], keys[key + 1], keys[key + 2]
  local op, member, version = argv[at], argv[at + 1], argv[at + 2]
  local known, new = tonumber(call('HGET', versions, member) or -1), tonumber(version)
  if op == 'add' and new >= known then
    local fresh = call('ZADD', set, 0, member) == 1
    call('HSET', versions, member, version)
    if fresh then
      call('ZREM', removed, member)
      if call('ZCARD', set) == 1 then
        call('PERSIST', versions)
        call('PERSIST', removed)
      end
    end
  elseif op == 'remove' and (new > known or new == known and not call('ZSCORE', set, member)) then
    -- A repeated remove is remembered for longer: what it must outlive may be repeated as well.
    call('ZREM', set, member)
    call('HSET', versions, member, version)
    call('ZADD', removed, 'GT', now + ledger, member)
    local expired = call('ZRANGE', removed, '-inf', now, 'BYSCORE', 'LIMIT', 0, 10)
    if #expired > 0 then
      call('ZREM', removed, unpack(expired))
      call('HDEL', versions, unpack(expired))
    end
    -- With the last member gone, all versions are those of removed ones.
    if call('EXISTS', set) == 0 then
      expire(versions)
      expire(removed)
    end
  end
  at = at + 3
end
return #keys / 3
