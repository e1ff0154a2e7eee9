-- Takes a ticket: of all who come with it, one gets its content.
--
-- KEYS 1 and 2 as in ticket_put.lua, 3 sorted set: digests of tickets that were used by the time at
--      which that is forgotten, in milliseconds since 1970
-- ARGV 1 digest, 2 what the keys of one owner's tickets begin with, 3 '1' if a client is to be told
--      that it is used, 4 milliseconds for which that is known, 5 of how many tickets
-- returns "content" and the content, "used" (once), or "unknown"

local now = milliseconds()
local waiting = redis.call('GET', KEYS[1])
if waiting then
  local owner, content = string.match(waiting, '^(%S+) (.*)$')
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  if not owner then
    return { 'unknown' }
  end
  redis.call('ZREM', ARGV[2] .. owner, ARGV[1])
  redis.call('ZADD', KEYS[3], digits(now + ARGV[4]), ARGV[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', digits(now))
  redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - ARGV[5])
  redis.call('PEXPIRE', KEYS[3], ARGV[4])
  return { 'content', content }
end
if ARGV[3] == '1' and redis.call('ZREM', KEYS[3], ARGV[1]) == 1 then
  return { 'used' }
end
return { 'unknown' }
