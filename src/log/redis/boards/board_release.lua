-- Ends a claim of a board that was made, or gives it back, unless somebody else has claimed the same.
--
-- KEYS 1 boards, 2 claims
-- ARGV 1 id of the board, 2 the claim, 3 '1' if the board was made
-- returns 1

if redis.call('HGET', KEYS[2], ARGV[1]) == ARGV[2] then
  redis.call('HDEL', KEYS[2], ARGV[1])
  if ARGV[3] ~= '1' then
    redis.call('ZREM', KEYS[1], ARGV[1])
  end
end
return 1
