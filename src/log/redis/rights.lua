-- Which of the commands that Fantail sends or its scripts call this user may not use on the keys and
-- channels of a topic. Changes nothing. Before Redis 7 nobody can be asked, and nothing is missing.
-- A test in rights.rs holds this list to what is sent and called.
--
-- KEYS 1 and more: those of a topic
-- ARGV 1 channel, 2 '1' if writes wait for replicas
-- returns the names of the commands that are denied

if not redis.acl_check_cmd then
  return {}
end
local key = KEYS[1]
local commands = {
  { 'PUBLISH', ARGV[1], '' }, { 'SUBSCRIBE', ARGV[1] }, { 'UNSUBSCRIBE', ARGV[1] },
  { 'EVAL', 'return 1', '1', key }, { 'INFO', 'replication' }, { 'HMGET', key, 'f' }, { 'TIME' }, { 'PING' },
  { 'DEL', key }, { 'EXISTS', key }, { 'GET', key }, { 'MGET', key }, { 'SET', key, '' }, { 'SETEX', key, '1', '' },
  { 'INCR', key }, { 'PEXPIRE', key, '1' }, { 'PTTL', key }, { 'PERSIST', key },
  { 'XADD', key, '*', 'e', '' }, { 'XRANGE', key, '-', '+' }, { 'XREVRANGE', key, '+', '-' },
  { 'XINFO', 'STREAM', key }, { 'XLEN', key }, { 'XTRIM', key, 'MINID', '=', '0' },
  { 'HGET', key, 'f' }, { 'HGETALL', key }, { 'HEXISTS', key, 'f' }, { 'HKEYS', key },
  { 'HLEN', key },
  { 'HSET', key, 'f', '' }, { 'HSETNX', key, 'f', '' }, { 'HDEL', key, 'f' },
  { 'HINCRBY', key, 'f', '1' }, { 'HSCAN', key, '0' }, { 'LRANGE', key, '0', '-1' },
  { 'ZADD', key, '1', 'a' }, { 'ZCARD', key }, { 'ZCOUNT', key, '1', '2' },
  { 'ZRANGE', key, '0', '-1' }, { 'ZRANGEBYSCORE', key, '1', '2' }, { 'ZRANK', key, 'a' },
  { 'ZREM', key, 'a' }, { 'ZREMRANGEBYRANK', key, '0', '1' },
  { 'ZREMRANGEBYSCORE', key, '1', '2' }, { 'ZSCORE', key, 'a' },
  { 'SCAN', '0' }, { 'TYPE', key },
}
if ARGV[2] == '1' then
  commands[#commands + 1] = { 'WAIT', '0', '0' }
end
local denied = {}
for _, command in ipairs(commands) do
  if not redis.acl_check_cmd(unpack(command)) then
    denied[#denied + 1] = command[1]
  end
end
return denied
