-- Reads a whole board, exact at one position.
--
-- KEYS and ARGV 1-8 as in board.lua
-- returns {seq, epoch, name as JSON, {list, title as JSON, {task, record, …}, …}} or {} if there
--         is no such board

local name = redis.call('HGET', KEYS[4], 'name')
if not name then
  return {}
end
local epoch, seq = open(LOG_KEYS, look(LOG_KEYS), ARGV[2], 0, tonumber(ARGV[4]))
local lists = {}
for _, list in ipairs(redis.call('LRANGE', KEYS[6], 0, -1)) do
  local tasks = {}
  for _, task in ipairs(redis.call('LRANGE', ORDER .. list, 0, -1)) do
    tasks[#tasks + 1] = task
    tasks[#tasks + 1] = redis.call('HGET', KEYS[8], task) or ''
  end
  lists[#lists + 1] = list
  lists[#lists + 1] = redis.call('HGET', KEYS[7], list) or '""'
  lists[#lists + 1] = tasks
end
return { digits(seq), epoch, name, lists }
