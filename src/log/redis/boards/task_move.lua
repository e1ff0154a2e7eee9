-- Puts a task elsewhere on its board.
--
-- KEYS and ARGV 1-10 as in board.lua
-- ARGV 11 id of the task, 12 id of the list, 13 index in it, or '' for its end
-- returns {'ok', seq, epoch, task as JSON} or {'no_such_task' | 'no_such_list'}, or
--         what answer_at_once does

local at_once = answer_at_once()
if at_once then
  return at_once
end
local task = read_task(ARGV[11])
if not task then
  return { 'no_such_task' }
end
local number = list_number(ARGV[12])
if not number then
  return { 'no_such_list' }
end
local from = task.list
redis.call('ZREM', ORDER, task.id)
local length = list_length(number)
local index = math.min(tonumber(ARGV[13]) or length, length)
put_at(task.id, number, index, length)
task.list = ARGV[12]
task.updated = rfc3339(milliseconds())
write_task(task)
return tell_of_task(task, index, from)
