-- Boards by their numbers.
--
-- KEYS 1 boards
-- ARGV 1 the lowest number, 2 the highest, or +inf, 3 how many at most, 4 id of a board after which to
--      begin instead, or ''
-- returns {'ok', id, number, …}, or {'', 'incomplete'} if it has to be all of them, or none is found

local is_complete = redis.call('ZSCORE', KEYS[1], ',' .. replication_id())
local lowest = ARGV[1]
if ARGV[4] ~= '' then
  local number = redis.call('ZSCORE', KEYS[1], ARGV[4])
  lowest = number and '(' .. number or lowest
end
local found = redis.call('ZRANGEBYSCORE', KEYS[1], lowest, ARGV[2], 'WITHSCORES', 'LIMIT', 0, ARGV[3])
if not is_complete and (#found == 0 or ARGV[2] == '+inf') then
  return { '', 'incomplete' }
end
return { 'ok', unpack(found) }
