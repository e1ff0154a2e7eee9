-- Notes what a node serves, or what of it has changed, and that the node lives. Forgets nodes that
-- have not said so for long.
--
-- KEYS 1 hash node -> "<milliseconds since 1970> <version> <streams> <topics>", 2 hash of the node's
--      topics: "s" or "t" and the name (with a state, without one) -> streams, and '' -> version,
--      3 stream of its last changes: "<version>-0" -> topic, streams, …
-- ARGV 1 node, 2 version that is built on, or '' if everything is said, 3 version,
--      4 "<streams> <topics>", 5 milliseconds after which all of it is old, 6 changes kept,
--      7.. topic, streams (0: none any more), …
-- returns 1, or 0 if what is built on is not here: then everything must be said

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local at = tonumber(string.match(all[i + 1], '^%d+'))
  if not at or now - at > tonumber(ARGV[5]) then
    redis.call('HDEL', KEYS[1], all[i])
  end
end

if ARGV[2] == '' then
  redis.call('DEL', KEYS[2], KEYS[3])
elseif redis.call('HGET', KEYS[2], '') ~= ARGV[2] then
  return 0
end
for i = 7, #ARGV, 2 do
  if ARGV[i + 1] == '0' then
    redis.call('HDEL', KEYS[2], ARGV[i])
  else
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
if ARGV[2] ~= ARGV[3] then
  redis.call('HSET', KEYS[2], '', ARGV[3])
end
if ARGV[2] ~= '' and #ARGV > 6 then
  redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[6], ARGV[3] .. '-0', unpack(ARGV, 7))
end
redis.call('PEXPIRE', KEYS[2], ARGV[5])
redis.call('PEXPIRE', KEYS[3], ARGV[5])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', now) .. ARGV[3] .. ' ' .. ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1
