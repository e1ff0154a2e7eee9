-- Adds a list at the right of a board.
--
-- KEYS and ARGV 1-6 as in board.lua
-- ARGV 7 id of the list, 8 title as JSON, 9 lists at most
-- returns {'ok', seq, epoch, list as JSON} or {'no_such_board' | 'list_exists' | 'board_full'}

if redis.call('EXISTS', KEYS[4]) == 0 then
  return { 'no_such_board' }
end
if redis.call('HEXISTS', KEYS[6], ARGV[7]) == 1 then
  return { 'list_exists' }
end
if redis.call('LLEN', KEYS[5]) >= tonumber(ARGV[9]) then
  return { 'board_full' }
end
redis.call('RPUSH', KEYS[5], ARGV[7])
redis.call('HSET', KEYS[6], ARGV[7], ARGV[8])
local json = list_json(BOARD, ARGV[7], ARGV[8])
local seq, epoch = tell('list_created', '{"list":' .. json .. '}')
return { 'ok', seq, epoch, json }
