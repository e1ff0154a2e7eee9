-- What changed in the list of revocations.
--
-- KEYS 1 hash: digest -> "<milliseconds since 1970> <state>", where the state is the time until which
--      it is revoked in seconds since 1970, or "-" (for good), or "lifted"; '' -> "<list> <changes>",
--      2 sorted set: digest by the number of its last change
-- ARGV 1 list that is known, 2 changes that are known, 3 records at most
-- returns list, changes as of the last record here, 1 if there are more, digest, record, …
--
-- A list that another Redis process took over may have lost its last changes: its name has the
-- replication id in it. One of whose keys something is missing is none.

local about = redis.call('HGET', KEYS[1], '')
local list, changes = string.match(about or '', '^(%w+) (%d+)$')
if not list or redis.call('HLEN', KEYS[1]) ~= redis.call('ZCARD', KEYS[2]) + 1 then
  return { '', '0', '0' }
end
list = list .. '-' .. (string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') or '')
local known = ARGV[1] == list and ARGV[2] or '0'
if known == changes then
  return { list, changes, '0' }
end
local after = '(' .. known
local changed = redis.call('ZRANGEBYSCORE', KEYS[2], after, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
local more = #changed == 2 * tonumber(ARGV[3])
local answer = { list, more and changed[#changed] or changes, more and '1' or '0' }
for i = 1, #changed, 2 do
  answer[#answer + 1] = changed[i]
  answer[#answer + 1] = redis.call('HGET', KEYS[1], changed[i]) or ''
end
return answer
