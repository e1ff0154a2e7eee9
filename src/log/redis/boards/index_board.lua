-- Claims ids for a board, or for new lists of a board that exists.
--
-- KEYS 1 counter of boards, 2 list of all boards' ids, 3 counter of lists, 4 hash list -> board,
--      5 hash board -> '1'
-- ARGV 1 id of the board, or '' for a new number, 2 boards at most, 3 '1' to make the board or '0'
--      if it exists, then for each list its id or '' for a new number
-- returns {'ok', board, list, …} or {'list_exists' | 'too_many_boards'}
--
-- A list id that this very board has claimed before may be claimed again: the board was then not
-- made, or has the list, which list_create.lua and board_create.lua find out.

local board = ARGV[1]
if ARGV[3] == '1' then
  if board == '' or redis.call('HEXISTS', KEYS[5], board) == 0 then
    if redis.call('HLEN', KEYS[5]) >= tonumber(ARGV[2]) then
      return { 'too_many_boards' }
    end
  end
  while board == '' do
    local id = 'board-' .. redis.call('INCR', KEYS[1])
    if redis.call('HEXISTS', KEYS[5], id) == 0 then
      board = id
    end
  end
end
local lists = {}
for i = 4, #ARGV do
  local owner = ARGV[i] ~= '' and redis.call('HGET', KEYS[4], ARGV[i])
  if owner and owner ~= board then
    return { 'list_exists' }
  end
  for _, other in ipairs(lists) do
    if ARGV[i] ~= '' and other == ARGV[i] then
      return { 'list_exists' }
    end
  end
  lists[#lists + 1] = ARGV[i]
end
-- Nothing is refused from here on.
for i, list in ipairs(lists) do
  while list == '' do
    local id = 'list-' .. redis.call('INCR', KEYS[3])
    if redis.call('HEXISTS', KEYS[4], id) == 0 then
      list = id
    end
  end
  redis.call('HSET', KEYS[4], list, board)
  lists[i] = list
end
if ARGV[3] == '1' and redis.call('HSETNX', KEYS[5], board, '1') == 1 then
  redis.call('RPUSH', KEYS[2], board)
end
return { 'ok', board, unpack(lists) }
