-- Adds a list at the right of a board.
--
-- KEYS and ARGV 1-10 as in board.lua
-- ARGV 11 id of the list, 12 title as JSON, 13 lists at most, 14 until when the id is claimed for this
--      call, in milliseconds since 1970
-- returns {'ok', seq, epoch, list as JSON} or {'no_such_board' | 'list_exists' | 'board_full' |
--         'too_late'}, or what answer_at_once does

local at_once = answer_at_once()
if at_once then
  return at_once
end
local lists = redis.call('HGET', BOARD, 'lists')
if not lists then
  return { 'no_such_board' }
end
if redis.call('HEXISTS', BOARD, 'list:' .. ARGV[11]) == 1 then
  return { 'list_exists' }
end
local used = {}
local count = 0
for list in string.gmatch(lists, '[^\n]+') do
  used[list_number(list) or 0] = true
  count = count + 1
end
if count >= tonumber(ARGV[13]) then
  return { 'board_full' }
end
if milliseconds() > tonumber(ARGV[14]) then
  return { 'too_late' }
end
-- Of a list that is gone all tasks are, so its number is free.
local number = 1
while used[number] do
  number = number + 1
end
redis.call('HSET', BOARD, 'lists', lists .. ARGV[11] .. '\n',
  'list:' .. ARGV[11], digits(number) .. ' ' .. ARGV[12])
return tell(ARGV[9], ARGV[10])
