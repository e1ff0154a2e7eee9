-- Makes a board with its lists. No event tells of it: nobody can watch a board before it exists, and
-- what a board begins with is in its snapshot.
--
-- KEYS and ARGV 1-7 as in board.lua
-- ARGV 8 name as JSON, 9 the board's number, 10 until when this and the ids of lists are claimed for
--      this call, in milliseconds since 1970, 11 '1' if a board with this number may have been here
--      before; then for each list: its id, its title as JSON
-- returns {'ok', seq, epoch} or {'board_exists' | 'too_late'}

if redis.call('EXISTS', BOARD) == 1 then
  return { 'board_exists' }
end
local now = milliseconds()
if now > tonumber(ARGV[10]) then
  return { 'too_late' }
end
-- Numbers of tasks that the one before can not have reached.
local next = ARGV[11] == '1' and digits(math.floor(now / 1000)) or '0'
local board = { 'name', ARGV[8], 'no', ARGV[9], 'next', next }
local lists = ''
for i = 12, #ARGV, 2 do
  lists = lists .. ARGV[i] .. '\n'
  board[#board + 1] = 'list:' .. ARGV[i]
  board[#board + 1] = digits((i - 10) / 2) .. ' ' .. ARGV[i + 1]
end
redis.call('HSET', BOARD, 'lists', lists, unpack(board))
-- Of a board whose own key was evicted.
redis.call('DEL', ORDER)
redis.call('ZADD', ORDER, '0', '')
-- A topic of this name may have been there before the board, with keys that expire.
local epoch, seq = open(LOG_KEYS, look(LOG_KEYS), ARGV[2], 0, tonumber(ARGV[4]))
redis.call('PERSIST', KEYS[1])
redis.call('PERSIST', KEYS[3])
return { 'ok', digits(seq), epoch }
