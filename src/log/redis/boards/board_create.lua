-- Makes a board with its lists. No event tells of it: nobody can watch a board before it exists, and
-- what a board begins with is in its snapshot.
--
-- KEYS and ARGV 1-8 as in board.lua
-- ARGV 9 name as JSON; then for each list: its id, its title as JSON
-- returns {'ok', seq, epoch} or {'board_exists'}

if redis.call('EXISTS', KEYS[4]) == 1 then
  return { 'board_exists' }
end
redis.call('HSET', KEYS[4], 'name', ARGV[9])
for i = 10, #ARGV, 2 do
  -- Lists of a board whose own key was evicted are still there.
  if redis.call('HSETNX', KEYS[7], ARGV[i], ARGV[i + 1]) == 1 then
    redis.call('RPUSH', KEYS[6], ARGV[i])
  end
end
-- A topic of this name may have been there before the board, with keys that expire.
local epoch, seq = open(LOG_KEYS, look(LOG_KEYS), ARGV[2], 0, tonumber(ARGV[4]))
redis.call('PERSIST', KEYS[1])
redis.call('PERSIST', KEYS[3])
return { 'ok', digits(seq), epoch }
