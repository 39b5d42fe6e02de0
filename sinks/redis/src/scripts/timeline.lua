-- Adds to and removes from timelines.
-- KEYS, per operation: the timeline, its tombstones (member -> end of life in ms).
-- ARGV: last rank to trim, ttl in ms or 0, ledger in ms; per operation: 'add', member, score | 'remove', member.
local call, keys, argv = redis.call, KEYS, ARGV
local trim, ttl, ledger = argv[1], argv[2], argv[3]
local now
local function clock()
  if not now then
    local time = call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return now
end

local at = 4
for key = 1, #keys, 2 do
  local timeline, removed, member = keys[key], keys[key + 1], argv[at + 1]
  if argv[at] == 'add' then
    local gone = call('ZSCORE', removed, member)
    if not gone or tonumber(gone) <= clock() then
      if call('ZADD', timeline, 'GT', argv[at + 2], member) == 1 then
        call('ZREMRANGEBYRANK', timeline, 0, trim)
      end
      if ttl ~= '0' then
        call('PEXPIRE', timeline, ttl)
      end
    end
    at = at + 3
  else
    call('ZREM', timeline, member)
    -- Never earlier than what another sink, with a longer ledger, has set.
    call('ZADD', removed, 'GT', clock() + ledger, member)
    if call('PTTL', removed) < tonumber(ledger) then
      call('PEXPIRE', removed, ledger)
    end
    local expired = call('ZRANGE', removed, '-inf', clock(), 'BYSCORE', 'LIMIT', 0, 10)
    if #expired > 0 then
      call('ZREM', removed, unpack(expired))
    end
    at = at + 2
  end
end
return #keys / 2
