-- Gives back the id of a list that was claimed and not made, unless somebody else has claimed it.
--
-- KEYS 1 lists
-- ARGV 1 id of the list, 2 the claim
-- returns 1

if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return 1
