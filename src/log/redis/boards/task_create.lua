-- Adds a task at the end of a list, and numbers it.
--
-- KEYS and ARGV 1-10 as in board.lua
-- ARGV 11 title as JSON, 12 id of the list, 13 tasks at most
-- returns {'ok', seq, epoch, task as JSON} or {'no_such_list' | 'board_full'}, or what
--         answer_at_once does

local at_once = answer_at_once()
if at_once then
  return at_once
end
local number = list_number(ARGV[12])
if not number then
  return { 'no_such_list' }
end
-- '' is one of them.
if redis.call('ZCARD', ORDER) > tonumber(ARGV[13]) then
  return { 'board_full' }
end
local id = 'task-' .. digits(redis.call('HINCRBY', BOARD, 'next', 1))
local no = redis.call('HGET', BOARD, 'no')
if no ~= '1' then
  id = id .. '-' .. no
end
local now = rfc3339(milliseconds())
local task = { id = id, list = ARGV[12], created = now, updated = now, title = ARGV[11] }
write_task(task)
local index = list_length(number)
put_at(id, number, index, index)
return tell_of_task(task, index)
