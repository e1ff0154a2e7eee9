-- Removes a task.
--
-- KEYS and ARGV 1-10 as in board.lua
-- ARGV 11 id of the task
-- returns {'ok', seq, epoch, ''} or {'no_such_task'}, or what answer_at_once does

local at_once = answer_at_once()
if at_once then
  return at_once
end
if redis.call('HDEL', BOARD, 'task:' .. ARGV[11]) == 0 then
  return { 'no_such_task' }
end
redis.call('ZREM', ORDER, ARGV[11])
return tell(ARGV[9], ARGV[10])
