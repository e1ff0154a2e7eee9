-- Gives a task another title.
--
-- KEYS and ARGV 1-11 as in board.lua
-- ARGV 12 id of the task, 13 title as JSON
-- returns {'ok', seq, epoch, task as JSON} or {'no_such_task'}, or what answer_at_once
--         does

local at_once = answer_at_once()
if at_once then
  return at_once
end
local task = read_task(KEYS[8], ARGV[12])
if not task then
  return { 'no_such_task' }
end
-- From the end: that is where tasks are made and mostly changed. An order that was evicted begins
-- anew with the tasks that are touched.
local index = redis.call('LPOS', ORDER .. task.list, task.id, 'RANK', -1)
  or redis.call('RPUSH', ORDER .. task.list, task.id) - 1
task.title = ARGV[13]
task.updated = rfc3339(milliseconds())
write_task(KEYS[8], task)
return tell_of_task(task, index)
