-- Adds a task at the end of a list.
--
-- KEYS and ARGV 1-11 as in board.lua
-- ARGV 12 id of the task, 13 title as JSON, 14 id of the list, 15 tasks at most
-- returns {'ok', seq, epoch, task as JSON} or {'no_such_list' | 'board_full'}, or what
--         answer_at_once does

local at_once = answer_at_once()
if at_once then
  return at_once
end
if redis.call('HEXISTS', KEYS[7], ARGV[14]) == 0 then
  return { 'no_such_list' }
end
if redis.call('HLEN', KEYS[8]) >= tonumber(ARGV[15]) then
  return { 'board_full' }
end
local now = rfc3339(milliseconds())
local task = { id = ARGV[12], list = ARGV[14], created = now, updated = now, title = ARGV[13] }
write_task(KEYS[8], task)
local index = redis.call('RPUSH', ORDER .. task.list, task.id) - 1
return tell_of_task(task, index)
