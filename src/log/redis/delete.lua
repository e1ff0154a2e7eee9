-- Deletes all entries of a topic. That takes a number, which no entry has, and is announced: who stands
-- before it is told.
--
-- KEYS 1 seq, 2 log, 3 meta, then births and board, if a call without them was answered {'which'}
-- ARGV 1 channel, 2 epoch to begin if one must, 3 history_ttl in milliseconds, 4 position that the head
--      must have or ''
-- returns {'ok', seq of the deletion, epoch}, {'nothing'} if there are no entries, {'has_state'},
--         {'precondition_failed', seq, epoch} or {'which'}

local keys = { seq = KEYS[1], log = KEYS[2], meta = KEYS[3], births = KEYS[4], board = KEYS[5] }
local topic = look(keys)
if not topic then
  return { 'which' }
end
if topic.is_board then
  return { 'has_state' }
end
local lifetime = tonumber(ARGV[3])
if redis.call('XLEN', keys.log) == 0 then
  return { 'nothing' }
end
local failed = precondition_failed(ARGV[4], keys, topic, ARGV[2], lifetime, lifetime)
if failed then
  return failed
end
local epoch, _, meta = open(keys, topic, ARGV[2], lifetime, lifetime)
local seq = digits(redis.call('INCR', keys.seq))
redis.call('DEL', keys.log)
redis.call('SET', keys.meta, with_deletion(meta, seq), 'PX', lifetime)
redis.call('PEXPIRE', keys.seq, lifetime)
redis.call('PUBLISH', ARGV[1], 'deleted')
return { 'ok', seq, epoch }
