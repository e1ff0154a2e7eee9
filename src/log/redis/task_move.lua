-- Puts a task elsewhere on its board.
--
-- KEYS and ARGV 1-6 as in board.lua
-- ARGV 7 id of the task, 8 id of the list, 9 index in it, or '' for its end
-- returns {'ok', seq, epoch, task as JSON} or {'no_such_task' | 'no_such_list'}

local task = read_task(KEYS[7], ARGV[7])
if not task then
  return { 'no_such_task' }
end
if redis.call('HEXISTS', KEYS[6], ARGV[8]) == 0 then
  return { 'no_such_list' }
end
local from = task.list
redis.call('LREM', ORDER .. from, -1, task.id)
local order = ORDER .. ARGV[8]
local length = redis.call('LLEN', order)
local index = math.min(tonumber(ARGV[9]) or length, length)
if index == length then
  redis.call('RPUSH', order, task.id)
else
  redis.call('LINSERT', order, 'BEFORE', redis.call('LINDEX', order, index), task.id)
end
task.list = ARGV[8]
task.updated = rfc3339(milliseconds())
write_task(KEYS[7], task)
local json = task_json(BOARD, task, index)
local seq, epoch = tell('task_moved',
  '{"task":' .. json .. ',"fromListId":' .. json_string(from) .. '}')
return { 'ok', seq, epoch, json }
