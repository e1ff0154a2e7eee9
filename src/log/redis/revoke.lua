-- Puts records into the list of revocations, as one step.
--
-- KEYS 1, 2 as in revocations.lua
-- ARGV 1 name of the list if it is a new one, 2 records that it may have, or '' for any number,
--      3.. digest, record, …
-- returns 1, or 0 if it would have too many: then nothing is changed

local about = redis.call('HGET', KEYS[1], '')
local list, changes = string.match(about or '', '^(%w+) (%d+)$')
if not list or redis.call('HLEN', KEYS[1]) ~= redis.call('ZCARD', KEYS[2]) + 1 then
  redis.call('DEL', KEYS[1], KEYS[2])
  list, changes = ARGV[1], 0
end

local function milliseconds(record)
  return tonumber(string.match(record, '^%d+')) or 0
end

local counted = {}
local count = redis.call('ZCARD', KEYS[2])
for i = 3, #ARGV, 2 do
  local before = redis.call('HGET', KEYS[1], ARGV[i])
  if not before then
    count = count + 1
  end
  if not before or milliseconds(before) < milliseconds(ARGV[i + 1]) then
    counted[#counted + 1] = i
  end
end
if ARGV[2] ~= '' and count > tonumber(ARGV[2]) then
  return 0
end
for _, i in ipairs(counted) do
  changes = changes + 1
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  redis.call('ZADD', KEYS[2], changes, ARGV[i])
end
redis.call('HSET', KEYS[1], '', list .. ' ' .. string.format('%.0f', changes))
return 1
