-- Notes that a node lives, and forgets those that have not said so for long.
--
-- KEYS 1 sorted set of nodes by when they last said so, in milliseconds since 1970
-- ARGV 1 node, 2 milliseconds after which one is forgotten
-- returns 1

local now = milliseconds()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. digits(now - ARGV[2]))
redis.call('ZADD', KEYS[1], digits(now), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
