-- Adds a task at the end of a list.
--
-- KEYS and ARGV 1-10 as in board.lua
-- ARGV 11 id of the task, 12 title as JSON, 13 id of the list, 14 tasks at most
-- returns {'ok', seq, epoch, task as JSON} or {'no_such_list' | 'board_full'}, or what
--         answer_at_once does

local at_once = answer_at_once()
if at_once then
  return at_once
end
if redis.call('HEXISTS', KEYS[6], ARGV[13]) == 0 then
  return { 'no_such_list' }
end
if redis.call('HLEN', KEYS[7]) >= tonumber(ARGV[14]) then
  return { 'board_full' }
end
local now = rfc3339(milliseconds())
local task = { id = ARGV[11], list = ARGV[13], created = now, updated = now, title = ARGV[12] }
write_task(KEYS[7], task)
local index = redis.call('RPUSH', ORDER .. task.list, task.id) - 1
return tell_of_task(task, index)
