-- Removes a task.
--
-- KEYS and ARGV 1-6 as in board.lua
-- ARGV 7 id of the task
-- returns {'ok', seq, epoch, ''} or {'no_such_task'}

local task = read_task(KEYS[7], ARGV[7])
if not task then
  return { 'no_such_task' }
end
redis.call('LREM', ORDER .. task.list, -1, task.id)
redis.call('HDEL', KEYS[7], task.id)
local seq, epoch = tell('task_deleted',
  '{"taskId":' .. json_string(task.id) .. ',"boardId":' .. json_string(BOARD) .. '}')
return { 'ok', seq, epoch, '' }
