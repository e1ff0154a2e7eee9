-- Adds a list at the right of a board.
--
-- KEYS and ARGV 1-11 as in board.lua
-- ARGV 12 id of the list, 13 title as JSON, 14 lists at most
-- returns {'ok', seq, epoch, list as JSON} or {'no_such_board' | 'list_exists' | 'board_full'}, or
--         what answer_at_once does

local at_once = answer_at_once()
if at_once then
  return at_once
end
if redis.call('EXISTS', KEYS[4]) == 0 then
  return { 'no_such_board' }
end
if redis.call('HEXISTS', KEYS[7], ARGV[12]) == 1 then
  return { 'list_exists' }
end
if redis.call('LLEN', KEYS[6]) >= tonumber(ARGV[14]) then
  return { 'board_full' }
end
redis.call('RPUSH', KEYS[6], ARGV[12])
redis.call('HSET', KEYS[7], ARGV[12], ARGV[13])
return tell(ARGV[10], ARGV[11])
