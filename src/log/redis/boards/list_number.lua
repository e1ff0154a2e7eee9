-- The next number for an id of a list.
--
-- KEYS 1 boards, 2 list-seq
-- returns {number} or {'', 'incomplete'}

if not redis.call('ZSCORE', KEYS[1], ',' .. replication_id())
  or redis.call('EXISTS', KEYS[2]) == 0 then
  return { '', 'incomplete' }
end
return { digits(redis.call('INCR', KEYS[2])) }
