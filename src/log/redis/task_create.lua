-- Adds a task at the end of a list.
--
-- KEYS and ARGV 1-6 as in board.lua
-- ARGV 7 id of the task, 8 title as JSON, 9 id of the list, 10 tasks at most
-- returns {'ok', seq, epoch, task as JSON} or {'no_such_list' | 'board_full'}

if redis.call('HEXISTS', KEYS[6], ARGV[9]) == 0 then
  return { 'no_such_list' }
end
if redis.call('HLEN', KEYS[7]) >= tonumber(ARGV[10]) then
  return { 'board_full' }
end
local now = rfc3339(milliseconds())
local task = { id = ARGV[7], list = ARGV[9], created = now, updated = now, title = ARGV[8] }
write_task(KEYS[7], task)
local index = redis.call('RPUSH', ORDER .. task.list, task.id) - 1
local json = task_json(BOARD, task, index)
local seq, epoch = tell('task_created', '{"task":' .. json .. '}')
return { 'ok', seq, epoch, json }
