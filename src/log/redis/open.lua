-- Finds a topic's log or makes it, so that a subscriber of an empty topic has a position.
--
-- KEYS 1 seq, 2 log, 3 meta, 4 board
-- ARGV 1 epoch to begin if one must, 2 history_ttl in milliseconds
-- returns {head, meta, id of the oldest entry or '', 1 if a board of this name exists else 0}

local is_board = redis.call('EXISTS', KEYS[4])
local ttl = is_board == 1 and 0 or tonumber(ARGV[2])
local _, head, meta = open(KEYS[1], KEYS[2], KEYS[3], ARGV[1], ttl)
-- Being watched counts as use. Keys that never expire stay so.
for i = 1, 3 do
  if redis.call('PTTL', KEYS[i]) >= 0 then
    redis.call('PEXPIRE', KEYS[i], ARGV[2])
  end
end
return { digits(head), meta, oldest_id(KEYS[2], head), is_board }
