-- The board of a list.
--
-- KEYS 1 lists
-- ARGV 1 id of the list
-- returns {id of the board} or {} if there is none, or {'', 'incomplete'}

local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then
  return { string.match(known, '^(%S*)') }
end
return redis.call('HGET', KEYS[1], '') == replication_id() and {} or { '', 'incomplete' }
