-- Removes records from the list of revocations, unless their keys have later ones.
--
-- KEYS 1, 2 as in revocations.lua
-- ARGV digest, record, …
-- returns how many were removed

local removed = 0
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
    redis.call('ZREM', KEYS[2], ARGV[i])
    removed = removed + 1
  end
end
return removed
