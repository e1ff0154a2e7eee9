-- Appends events to a topic and announces them.
--
-- KEYS 1 seq, 2 log, 3 meta, 4 board (exists if the topic belongs to a board), 5 births, 6 once:… of
--      the request's idempotency key, if it has one
-- ARGV 1 channel, 2 epoch to begin if one must, 3 history_entries_max, 4 history_ttl in
--      milliseconds, 5 position that the head must have or '', 6 idempotency window in
--      milliseconds, 7 '1' if one of the event types is one that only a board may use; then for
--      each event '1' for JSON data or '0' for text, SSE text after the id line
-- returns {'ok', seq of the last, epoch, '', 'replayed' or nothing} or {'reserved_event_type'} or
--         {'key_reused'} or {'precondition_failed', seq, epoch}

local request = KEYS[6] and table.concat(ARGV, '', 8) or ''
local before = stored_result(KEYS[6], request, ARGV[6])
if before then
  return before
end
local is_board = redis.call('EXISTS', KEYS[4]) == 1
if is_board and ARGV[7] == '1' then
  return { 'reserved_event_type' }
end
-- A board's numbering lives as long as the board.
local retention = { entries_max = ARGV[3], log_ttl = tonumber(ARGV[4]) }
retention.ttl = is_board and 0 or retention.log_ttl
local keys = { seq = KEYS[1], log = KEYS[2], meta = KEYS[3], births = KEYS[5] }
local failed = precondition_failed(ARGV[5], keys, ARGV[2], retention.ttl, retention.log_ttl)
if failed then
  return failed
end
local seq, epoch = append(keys, ARGV[1], ARGV[2], ARGV, 8, retention)
store_result(KEYS[6], request, ARGV[6], seq, epoch, '')
return { 'ok', seq, epoch }
