-- Notes that the index of boards is complete.
--
-- KEYS 1 boards
-- ARGV 1 the replication id with which this was begun
-- returns 1, or 0 if another process took over meanwhile

if replication_id() ~= ARGV[1] then
  return 0
end
redis.call('ZADD', KEYS[1], 0, ',' .. ARGV[1])
return 1
