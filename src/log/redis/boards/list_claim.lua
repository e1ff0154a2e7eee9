-- Claims the id of a list for a board.
--
-- KEYS 1 lists
-- ARGV 1 id of the list, 2 id of the board, 3 what is taken over, because that board does not have it,
--      or ''
-- returns {'ok', the claim, now in milliseconds since 1970, '1' if nobody had it, else '0'} or {'taken',
--         what it is, its board, for how many milliseconds} or {'', 'incomplete'}

if redis.call('HGET', KEYS[1], '') ~= replication_id() then
  return { '', 'incomplete' }
end
local now = milliseconds()
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known and known ~= ARGV[3] then
  local board, at = string.match(known, '^(%S+) (%d+)$')
  if board ~= ARGV[2] then
    return { 'taken', known, board or '', digits(now - (at or 0)) }
  end
  -- No two claims are the same.
  now = math.max(now, (at or 0) + 1)
end
local claim = ARGV[2] .. ' ' .. digits(now)
redis.call('HSET', KEYS[1], ARGV[1], claim)
return { 'ok', claim, digits(now), (not known or known == ARGV[3]) and '1' or '0' }
