-- Appends one event to a topic and announces it.
--
-- KEYS 1 seq, 2 log, 3 meta, 4 board (exists if the topic belongs to a board)
-- ARGV 1 channel, 2 epoch to begin if one must, 3 history_entries_max, 4 history_ttl in
--      milliseconds, 5 '1' for JSON data or '0' for text, 6 SSE text after the id line,
--      7 '1' if the event type is one that only a board may use
-- returns {'ok', seq, epoch} or {'event_type_of_board'}

local is_board = redis.call('EXISTS', KEYS[4]) == 1
if is_board and ARGV[7] == '1' then
  return { 'event_type_of_board' }
end
local ttl = tonumber(ARGV[4])
-- A board's numbering lives as long as the board.
local retention = { entries_max = ARGV[3], log_ttl = ttl, ttl = is_board and 0 or ttl }
local seq, epoch = append(KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2], ARGV[5], ARGV[6], retention)
return { 'ok', seq, epoch }
