-- Puts a task elsewhere on its board.
--
-- KEYS and ARGV 1-11 as in board.lua
-- ARGV 12 id of the task, 13 id of the list, 14 index in it, or '' for its end
-- returns {'ok', seq, epoch, task as JSON} or {'no_such_task' | 'no_such_list'}, or
--         what answer_at_once does

local at_once = answer_at_once()
if at_once then
  return at_once
end
local task = read_task(KEYS[8], ARGV[12])
if not task then
  return { 'no_such_task' }
end
if redis.call('HEXISTS', KEYS[7], ARGV[13]) == 0 then
  return { 'no_such_list' }
end
local from = task.list
redis.call('LREM', ORDER .. from, -1, task.id)
local order = ORDER .. ARGV[13]
local length = redis.call('LLEN', order)
local index = math.min(tonumber(ARGV[14]) or length, length)
if index == length then
  redis.call('RPUSH', order, task.id)
else
  redis.call('LINSERT', order, 'BEFORE', redis.call('LINDEX', order, index), task.id)
end
task.list = ARGV[13]
task.updated = rfc3339(milliseconds())
write_task(KEYS[8], task)
return tell_of_task(task, index, from)
