-- Reads a whole board, exact at one position.
--
-- KEYS and ARGV 1-7 as in board.lua
-- returns {seq, epoch, name as JSON, {list, title as JSON, {task, record, …}, …}} or {} if there
--         is no such board

-- Where a board was evicted, it also notes that the topic is none any more.
local topic = look(LOG_KEYS)
if not topic.is_board then
  return {}
end
mend_order()
local epoch, seq = open(LOG_KEYS, topic, ARGV[2], 0, tonumber(ARGV[4]))
local all = redis.call('HGETALL', BOARD)
local board = {}
for i = 1, #all, 2 do
  board[all[i]] = all[i + 1]
end
local lists, tasks_of = {}, {}
for list in string.gmatch(board.lists or '', '[^\n]+') do
  local number, title = string.match(board['list:' .. list] or '', '^(%d+) (.*)$')
  local tasks = {}
  tasks_of[tonumber(number)] = tasks
  lists[#lists + 1] = list
  lists[#lists + 1] = title
  lists[#lists + 1] = tasks
end
local order = redis.call('ZRANGE', ORDER, 0, -1, 'WITHSCORES')
for i = 1, #order, 2 do
  local tasks = tasks_of[math.floor(tonumber(order[i + 1]) / LIST_SCORES)]
  local record = board['task:' .. order[i]]
  if tasks and record then
    tasks[#tasks + 1] = order[i]
    tasks[#tasks + 1] = record
  end
end
return { digits(seq), epoch, board.name, lists }
