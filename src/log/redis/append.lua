-- Appends events to a topic and announces them.
--
-- KEYS 1 seq, 2 log, 3 meta, then once:… of the request's idempotency key, if it has one, then births
--      and board, if a call without them was answered {'which'}
-- ARGV 1 channel, 2 epoch to begin if one must, 3 sizes of the history, 4 history_ttl in
--      milliseconds, 5 position that the head must have or '', 6 idempotency window in
--      milliseconds or '' without an idempotency key, 7 '1' if one of the event types is one that
--      only a board may use; then for each event '1' for JSON data or '0' for text, SSE text after
--      the id line
-- returns {'ok', seq of the last, epoch, '', 'replayed' or nothing} or {'reserved_event_type'} or
--         {'key_reused'} or {'precondition_failed', seq, epoch} or {'which'}

local once_key = ARGV[6] ~= '' and KEYS[4] or nil
local request = once_key and table.concat(ARGV, '', 8) or ''
local before = stored_result(once_key, request, ARGV[6])
if before then
  return before
end
local others = once_key and 5 or 4
local keys = {
  seq = KEYS[1], log = KEYS[2], meta = KEYS[3], births = KEYS[others], board = KEYS[others + 1],
}
local topic = look(keys)
if not topic then
  return { 'which' }
end
if topic.is_board and ARGV[7] == '1' then
  return { 'reserved_event_type' }
end
-- A board's numbering lives as long as the board.
local log_ttl = tonumber(ARGV[4])
local retention = retention_of(ARGV[3], log_ttl, topic.is_board and 0 or log_ttl)
local failed =
  precondition_failed(ARGV[5], keys, topic, ARGV[2], retention.ttl, retention.log_ttl)
if failed then
  return failed
end
local seq, epoch = append(keys, topic, ARGV[1], ARGV[2], ARGV, 8, retention)
store_result(once_key, request, ARGV[6], seq, epoch, '')
return { 'ok', seq, epoch }
