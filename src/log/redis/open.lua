-- Finds a topic's log. One that nobody has written to is not made: whoever watches it costs nothing.
--
-- KEYS 1 seq, 2 log, 3 meta, then births and board, if a call without them was answered {'which'}
-- ARGV 1 epoch to begin if one must, 2 history_ttl in milliseconds
-- returns {head, meta, id of the oldest entry or '', '1' if a board of this name exists else '0'},
--         or, where there is no log, {what `unwritten` says, '0'}, or {'which'}

local keys = { seq = KEYS[1], log = KEYS[2], meta = KEYS[3], births = KEYS[4], board = KEYS[5] }
local topic = look(keys)
if not topic then
  return { 'which' }
end
local lifetime = tonumber(ARGV[2])
if not topic.is_board and not topic.is_written then
  local now, meta, since = unwritten(keys, lifetime)
  return { now, meta, since, '0' }
end
local _, head, meta = open(keys, topic, ARGV[1], topic.is_board and 0 or lifetime, lifetime)
-- Being watched counts as use. Keys that never expire stay so.
for i = 1, 3 do
  if redis.call('PTTL', KEYS[i]) >= 0 then
    redis.call('PEXPIRE', KEYS[i], ARGV[2])
  end
end
return { digits(head), meta, oldest_id(keys.log, head), topic.is_board and '1' or '0' }
