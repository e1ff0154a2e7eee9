-- Notes what a node serves, or what of it has changed, and that the node lives. All of it expires
-- with the node.
--
-- KEYS 1 string "<version> <streams> <topics>", 2 hash of the node's topics: "s" or "t" and the name
--      (with a state, without one) -> streams, and '' -> version, 3 stream of its last changes:
--      "<version>-0" -> topic, streams, …
-- ARGV 1 version that is built on, or '' if everything is said, 2 version, 3 "<streams> <topics>",
--      4 milliseconds after which all of it is old, 5 changes kept, 6.. topic, streams (0: none any
--      more), …
-- returns 1, or 0 if what is built on is not here: then everything must be said

if ARGV[1] == '' then
  redis.call('DEL', KEYS[2], KEYS[3])
elseif redis.call('HGET', KEYS[2], '') ~= ARGV[1] then
  return 0
end
for i = 6, #ARGV, 2 do
  if ARGV[i + 1] == '0' then
    redis.call('HDEL', KEYS[2], ARGV[i])
  else
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
if ARGV[1] ~= ARGV[2] then
  redis.call('HSET', KEYS[2], '', ARGV[2])
end
if ARGV[1] ~= '' and #ARGV > 5 then
  redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[5], ARGV[2] .. '-0', unpack(ARGV, 6))
end
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('PEXPIRE', KEYS[3], ARGV[4])
redis.call('SET', KEYS[1], ARGV[2] .. ' ' .. ARGV[3], 'PX', ARGV[4])
return 1
