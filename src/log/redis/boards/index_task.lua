-- Gives a new task its id and notes its board.
--
-- KEYS 1 counter of tasks, 2 hash task -> board
-- ARGV 1 id of the board
-- returns the id. If the task is then not made, the note leads to a board that does not know it,
-- which is the same as no note.

local task = 'task-' .. redis.call('INCR', KEYS[1])
redis.call('HSET', KEYS[2], task, ARGV[1])
return task
