-- Notes a board that was found, and its number.
--
-- KEYS 1 boards, 2 board-seq
-- ARGV 1 id of the board, 2 its number, or '' if it has none yet
-- returns its number

local number = ARGV[2]
if number == '' then
  number = redis.call('ZSCORE', KEYS[1], ARGV[1]) or digits(redis.call('INCR', KEYS[2]))
end
redis.call('ZADD', KEYS[1], number, ARGV[1])
if tonumber(redis.call('GET', KEYS[2]) or 0) < tonumber(number) then
  redis.call('SET', KEYS[2], number)
end
return digits(tonumber(number))
