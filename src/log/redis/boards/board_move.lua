-- Moves a board of an earlier version to where this one looks, in one step.
--
-- KEYS 1 meta, 2 board, 3 board:order, 4 board:lists, 5 board:titles, 6 board:tasks, then for each list
--      board:order:<list>
-- ARGV 1 the board's number, 2 a number that a task of it may have, 3 its name as JSON if that is gone,
--      then the ids of its lists, of which the keys are: those that board:lists and board:titles have
-- returns 'moved', 'done' if it was before, 'none' if there is no board, or 'lists' if there are
--         others than those

local META, BOARD, ORDER, LISTS, TITLES, TASKS = unpack(KEYS, 1, 6)
if redis.call('HEXISTS', BOARD, 'no') == 1 then
  return 'done'
end
if redis.call('EXISTS', BOARD, LISTS, TITLES) == 0 then
  return 'none'
end

local LIST_SCORES = 17592186044416
local RANK_STEP = 1048576
local VALUES_MAX = 1000

local function all_of(key)
  local fields = {}
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    fields[all[i]] = all[i + 1]
  end
  return fields
end
local function write(command, key, values)
  for i = 1, #values, VALUES_MAX do
    redis.call(command, key, unpack(values, i, math.min(i + VALUES_MAX - 1, #values)))
  end
end

local titles, records = all_of(TITLES), all_of(TASKS)
local declared = {}
for i = 4, #ARGV do
  declared[ARGV[i]] = i - 3
end
local lists = {}
local seen = {}
local function add_list(list)
  if not seen[list] then
    seen[list] = true
    lists[#lists + 1] = list
  end
  return declared[list]
end
for _, list in ipairs(redis.call('LRANGE', LISTS, 0, -1)) do
  if not add_list(list) then
    return 'lists'
  end
end
-- In an order that is the same whoever asks.
local others = {}
for list in pairs(titles) do
  others[#others + 1] = list
end
table.sort(others)
for _, list in ipairs(others) do
  if not add_list(list) then
    return 'lists'
  end
end

local board, order = {}, { '0', '' }
local text = ''
local tasks_of, has_place = {}, {}
for number, list in ipairs(lists) do
  text = text .. list .. '\n'
  board[#board + 1] = 'list:' .. list
  board[#board + 1] = digits(number) .. ' ' .. (titles[list] or '""')
  tasks_of[list] = {}
  for _, task in ipairs(redis.call('LRANGE', KEYS[6 + declared[list]], 0, -1)) do
    if records[task] and not has_place[task] then
      has_place[task] = true
      tasks_of[list][#tasks_of[list] + 1] = task
    end
  end
end
-- Tasks whose place was evicted stand at the end, as they were made.
local left, last = {}, tonumber(ARGV[2])
for task in pairs(records) do
  local made = tonumber(string.match(task, '^task%-(%d+)$')) or 0
  last = math.max(last, made)
  if not has_place[task] then
    left[#left + 1] = { id = task, made = made }
  end
end
table.sort(left, function(one, other)
  return one.made < other.made or one.made == other.made and one.id < other.id
end)
for _, task in ipairs(left) do
  local tasks = tasks_of[string.match(records[task.id], '^[^\n]*')]
  if tasks then
    tasks[#tasks + 1] = task.id
  end
end
for number, list in ipairs(lists) do
  local score = number * LIST_SCORES + LIST_SCORES / 2
  for _, task in ipairs(tasks_of[list]) do
    order[#order + 1] = digits(score)
    order[#order + 1] = task
    score = score + RANK_STEP
  end
end
for task, record in pairs(records) do
  board[#board + 1] = 'task:' .. task
  board[#board + 1] = record
end

local name = redis.call('HGET', BOARD, 'name') or ARGV[3]
redis.call('DEL', ORDER)
write('ZADD', ORDER, order)
write('HSET', BOARD, board)
-- Tasks of other boards have the board's number in their ids from now on.
local next = ARGV[1] == '1' and digits(last) or '0'
redis.call('HSET', BOARD, 'name', name, 'lists', text, 'next', next, 'no', ARGV[1])
local meta = redis.call('GET', META)
local head, sign, past = string.match(meta or '', '^(%w+ %w+ %d+)( ?[+-]?)(.*)$')
if head then
  past = (sign == ' +' or sign == ' -') and past or sign .. past
  redis.call('SET', META, head .. ' +' .. past, 'KEEPTTL')
end
redis.call('DEL', LISTS, TITLES, TASKS, unpack(KEYS, 7))
return 'moved'
