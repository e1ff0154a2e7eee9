-- Forgets what an earlier version had of all topics and boards, and notes that all is moved.
--
-- KEYS 1 layout, then the keys of the earlier version
-- ARGV 1 the layout of this version
-- returns 1

redis.call('DEL', unpack(KEYS, 2))
redis.call('SET', KEYS[1], ARGV[1])
return 1
