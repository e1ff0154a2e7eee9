-- What every script on the index of boards begins with.
--
-- The index says where ids lead: which number a board has, and which board a list is on. Boards are
-- the truth, and it is made from them wherever it was lost. Each of its parts lies on its own:
--   boards       sorted set   ids of boards by number; and "," and a replication id, with the score 0
--   claims       hash         id of a board that is perhaps not made yet -> "<number> <milliseconds
--                             since 1970>"
--   board-seq    string       the last number that was given to a board
--   list-seq     string       the last number that an id of a list was made of
--   lists        hash         256 of them, by id: id of a list -> "<board> <when it was claimed, in
--                             milliseconds since 1970>"; and '' -> a replication id
-- A part is complete in the Redis process whose replication id it has. Another one may have less
-- than was acknowledged: whoever asks it is answered {'', 'incomplete'} until somebody has gone through all
-- boards.

local function digits(number)
  return string.format('%.0f', number)
end

local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function replication_id()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') or 'unknown'
end
