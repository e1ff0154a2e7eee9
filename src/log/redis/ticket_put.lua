-- Has a ticket wait.
--
-- KEYS 1 string: "<owner> <content>" of this ticket, 2 sorted set: digests of all tickets that wait
--      by the time at which they are over, in milliseconds since 1970, 3 the same of one owner
-- ARGV 1 digest, 2 owner, 3 content, 4 milliseconds that it waits, 5 of one owner at most, 6 of all
-- returns "ok", or "owner" or "all" if as many of them wait as may: then it does not

local now = milliseconds()
local over_at = digits(now + ARGV[4])
for i = 2, 3 do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', digits(now))
end
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[5]) then
  return 'owner'
end
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[6]) then
  return 'all'
end
redis.call('SET', KEYS[1], ARGV[2] .. ' ' .. ARGV[3], 'PX', ARGV[4])
for i = 2, 3 do
  redis.call('ZADD', KEYS[i], over_at, ARGV[1])
  redis.call('PEXPIRE', KEYS[i], ARGV[4])
end
return 'ok'
