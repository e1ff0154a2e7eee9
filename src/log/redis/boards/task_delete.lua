-- Removes a task.
--
-- KEYS and ARGV 1-11 as in board.lua
-- ARGV 12 id of the task
-- returns {'ok', seq, epoch, ''} or {'no_such_task'}, or what answer_at_once does

local at_once = answer_at_once()
if at_once then
  return at_once
end
local task = read_task(KEYS[8], ARGV[12])
if not task then
  return { 'no_such_task' }
end
redis.call('LREM', ORDER .. task.list, -1, task.id)
redis.call('HDEL', KEYS[8], task.id)
return tell(ARGV[10], ARGV[11])
