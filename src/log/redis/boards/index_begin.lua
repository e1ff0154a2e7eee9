-- Begins to make the index of boards anew; an earlier version's is taken over.
--
-- KEYS 1 boards, 2 board-seq, 3 list-seq
-- ARGV 1 numbers to leave out, because they may have been given to somebody already
-- returns the replication id

local is_complete = redis.call('TYPE', KEYS[1])['ok'] == 'zset'
  and redis.call('ZSCORE', KEYS[1], ',' .. replication_id())
if is_complete and redis.call('EXISTS', KEYS[2], KEYS[3]) == 2 then
  -- Some of the lists alone were lost.
  return replication_id()
end
local is_known = redis.call('EXISTS', KEYS[1], KEYS[2]) > 0
local kind = redis.call('TYPE', KEYS[1])['ok']
local numbers = { tonumber(redis.call('GET', KEYS[2]) or 0), tonumber(redis.call('GET', KEYS[3]) or 0) }
if kind == 'list' then
  -- In the order in which they were made.
  local ids = redis.call('LRANGE', KEYS[1], 0, -1)
  redis.call('DEL', KEYS[1])
  for number, id in ipairs(ids) do
    redis.call('ZADD', KEYS[1], number, id)
  end
  numbers[1] = math.max(numbers[1], #ids)
elseif is_known then
  redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, 0)
  numbers[1] = numbers[1] + ARGV[1]
  numbers[2] = numbers[2] + ARGV[1]
end
redis.call('SET', KEYS[2], digits(numbers[1]))
redis.call('SET', KEYS[3], digits(numbers[2]))
return replication_id()
