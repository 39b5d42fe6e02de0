-- Merges parts into documents: per field the higher version wins, at equal versions the greater text. A deleted
-- document stays away. The JSON is never parsed here: values are kept and joined as text.
-- KEYS, per operation: the document, its fields ("name" in quotes -> version:text; '' marks a deleted one).
-- ARGV: ttl in ms or 0, ledger in ms, most fields; per operation: 'delete' | 'put', n, n times: "name", version, text.
local call, keys, argv = redis.call, KEYS, ARGV
local ttl, ledger, fields_max = argv[1], argv[2], tonumber(argv[3])

-- Whether a stands before b in bytes; Lua's own '<' follows the server's locale.
local function before(a, b)
  local last = math.min(#a, #b)
  for from = 1, last, 64 do
    local part_a, part_b = string.sub(a, from, from + 63), string.sub(b, from, from + 63)
    if part_a ~= part_b then
      for i = 1, math.min(#part_a, #part_b) do
        local byte_a, byte_b = string.byte(part_a, i), string.byte(part_b, i)
        if byte_a ~= byte_b then
          return byte_a < byte_b
        end
      end
    end
  end
  return #a < #b
end

local function split(stored)
  local colon = string.find(stored, ':', 1, true)
  return tonumber(string.sub(stored, 1, colon - 1)), string.sub(stored, colon + 1)
end

local function rebuild(document, fields)
  local all = call('HGETALL', fields)
  local names, texts = {}, {}
  for i = 1, #all, 2 do
    local _, text = split(all[i + 1])
    names[#names + 1] = all[i]
    texts[all[i]] = text
  end
  table.sort(names, before)
  for i, name in ipairs(names) do
    names[i] = name .. ':' .. texts[name]
  end
  call('SET', document, '{' .. table.concat(names, ',') .. '}')
end

-- What of n fields from argv[from] on is newer than what is stored, and how many names are new.
local function newer(stored, from, n)
  local changes, added = {}, 0
  for i = 1, n do
    local place = from + 3 * (i - 1)
    local name, version, text = argv[place], argv[place + 1], argv[place + 2]
    local wins = true
    if stored[i] then
      local old_version, old_text = split(stored[i])
      local new_version = tonumber(version)
      wins = new_version > old_version
        or (new_version == old_version and text ~= old_text and before(old_text, text))
    else
      added = added + 1
    end
    if wins then
      changes[#changes + 1] = name
      changes[#changes + 1] = version .. ':' .. text
    end
  end
  return changes, added
end

local at = 4
for key = 1, #keys, 2 do
  local document, fields = keys[key], keys[key + 1]
  -- STRLEN and HEXISTS fail where a key is of another type, before anything is overwritten.
  local length = call('STRLEN', document)
  if argv[at] == 'delete' then
    local buried = call('HEXISTS', fields, '') == 1
    local lives = buried and call('PTTL', fields) or 0
    call('DEL', document, fields)
    call('HSET', fields, '', '')
    -- Never earlier than what another sink, with a longer ledger, has set.
    call('PEXPIRE', fields, math.max(lives, ledger))
    at = at + 1
  else
    local n = tonumber(argv[at + 1])
    local names = { '' }
    for i = 1, n do
      names[i + 1] = argv[at + 3 * i - 1]
    end
    local stored = call('HMGET', fields, unpack(names))
    if not table.remove(stored, 1) then
      local changes, added = newer(stored, at + 2, n)
      if added > 0 and call('HLEN', fields) + added > fields_max then
        return redis.error_reply('FIELDS the document would have too many fields')
      end
      if #changes > 0 then
        call('HSET', fields, unpack(changes))
      end
      if #changes > 0 or length == 0 then
        rebuild(document, fields)
      end
      if ttl ~= '0' then
        call('PEXPIRE', document, ttl)
        call('PEXPIRE', fields, ttl)
      end
    end
    at = at + 2 + 3 * n
  end
end
return #keys / 2
