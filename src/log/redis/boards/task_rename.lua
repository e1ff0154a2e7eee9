-- Gives a task another title.
--
-- KEYS and ARGV 1-10 as in board.lua
-- ARGV 11 id of the task, 12 title as JSON
-- returns {'ok', seq, epoch, task as JSON} or {'no_such_task'}, or what answer_at_once
--         does

local at_once = answer_at_once()
if at_once then
  return at_once
end
local task = read_task(ARGV[11])
if not task then
  return { 'no_such_task' }
end
local number = list_number(task.list) or 1
local index = index_of(task.id, number)
if not index then
  index = list_length(number)
  put_at(task.id, number, index, index)
end
task.title = ARGV[12]
task.updated = rfc3339(milliseconds())
write_task(task)
return tell_of_task(task, index)
