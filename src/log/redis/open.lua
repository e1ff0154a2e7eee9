-- Finds a topic's log. One that nobody has written to is not made: whoever watches it costs nothing.
--
-- KEYS 1 seq, 2 log, 3 meta, 4 board, 5 births
-- ARGV 1 epoch to begin if one must, 2 history_ttl in milliseconds
-- returns {head, meta, id of the oldest entry or '', 1 if a board of this name exists else 0}, or,
--         where there is no log, {what `unwritten` says, 0}

local keys = { seq = KEYS[1], log = KEYS[2], meta = KEYS[3], births = KEYS[5] }
local is_board = redis.call('EXISTS', KEYS[4])
local lifetime = tonumber(ARGV[2])
if is_board == 0 and not is_written(keys) then
  local now, meta, since = unwritten(keys, lifetime)
  return { now, meta, since, 0 }
end
local ttl = is_board == 1 and 0 or lifetime
local _, head, meta = open(keys, ARGV[1], ttl, lifetime)
-- Being watched counts as use. Keys that never expire stay so.
for i = 1, 3 do
  if redis.call('PTTL', KEYS[i]) >= 0 then
    redis.call('PEXPIRE', KEYS[i], ARGV[2])
  end
end
return { digits(head), meta, oldest_id(KEYS[2], head), is_board }
