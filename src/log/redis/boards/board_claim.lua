-- Claims a number for a board, and an id if it has none.
--
-- KEYS 1 boards, 2 board-seq, 3 claims
-- ARGV 1 id of the board, or '' for a new one, 2 boards at most, 3 milliseconds after which a claim may
--      be of a board that was there
-- returns {'ok', id, number, the claim, now in milliseconds since 1970, '1' if a board with this number
--         may have been there before, else '0'} or {'too_many_boards' | 'incomplete'}

if not redis.call('ZSCORE', KEYS[1], ',' .. replication_id())
  or redis.call('EXISTS', KEYS[2]) == 0 then
  return { '', 'incomplete' }
end
local now = milliseconds()
local board = ARGV[1]
local number = board ~= '' and redis.call('ZSCORE', KEYS[1], board)
local was_there = '0'
if number then
  number = digits(tonumber(number))
  local at = string.match(redis.call('HGET', KEYS[3], board) or '', ' (%d+)$')
  if not at or now - at > tonumber(ARGV[3]) then
    was_there = '1'
  end
  -- No two claims are the same.
  now = math.max(now, (at or 0) + 1)
else
  -- One more than boards: the replication id.
  if redis.call('ZCARD', KEYS[1]) > tonumber(ARGV[2]) then
    return { 'too_many_boards' }
  end
  number = digits(redis.call('INCR', KEYS[2]))
  while board == '' do
    if redis.call('ZSCORE', KEYS[1], 'board-' .. number) then
      number = digits(redis.call('INCR', KEYS[2]))
    else
      board = 'board-' .. number
    end
  end
  redis.call('ZADD', KEYS[1], number, board)
end
local claim = number .. ' ' .. digits(now)
redis.call('HSET', KEYS[3], board, claim)
return { 'ok', board, number, claim, digits(now), was_there }
