-- Adds a list at the right of a board.
--
-- KEYS and ARGV 1-10 as in board.lua
-- ARGV 11 id of the list, 12 title as JSON, 13 lists at most
-- returns {'ok', seq, epoch, list as JSON} or {'no_such_board' | 'list_exists' | 'board_full'}, or
--         what answer_at_once does

local at_once = answer_at_once()
if at_once then
  return at_once
end
if redis.call('EXISTS', KEYS[4]) == 0 then
  return { 'no_such_board' }
end
if redis.call('HEXISTS', KEYS[6], ARGV[11]) == 1 then
  return { 'list_exists' }
end
if redis.call('LLEN', KEYS[5]) >= tonumber(ARGV[13]) then
  return { 'board_full' }
end
redis.call('RPUSH', KEYS[5], ARGV[11])
redis.call('HSET', KEYS[6], ARGV[11], ARGV[12])
return tell(ARGV[9], ARGV[10])
