-- Looks how the keys are laid out, and notes it where there are none yet.
--
-- KEYS 1 layout, 2 births, 3 hash node -> "<milliseconds since 1970> …", 4 boards, 5 board-ids,
--      6 task-seq, 7 tasks; 2 to 7 as an earlier version has them, of all topics and boards
-- ARGV 1 the layout of this version, 2 milliseconds after which a node of that version that says nothing
--      is gone
-- returns {'settled', '1' if there are tasks whose ids do not say their board, else '0'}, {'later',
--         layout}, {'alive', node, …} while nodes of the earlier version are, or {'old', when Redis was
--         found empty or '', now, replication id, keys it has evicted, the last number of a task}, times
--         in milliseconds since 1970

local layout = redis.call('GET', KEYS[1])
if layout and layout ~= ARGV[1] then
  return { 'later', layout }
end
local is_old = redis.call('EXISTS', KEYS[2], KEYS[5], KEYS[6]) > 0
  or redis.call('TYPE', KEYS[4])['ok'] == 'list'
if not is_old then
  if not layout then
    redis.call('SET', KEYS[1], ARGV[1])
  end
  return { 'settled', tostring(redis.call('EXISTS', KEYS[7])) }
end
local now = milliseconds()
local alive = { 'alive' }
local nodes = redis.call('HGETALL', KEYS[3])
for i = 1, #nodes, 2 do
  local at = tonumber(string.match(nodes[i + 1], '^%d+'))
  if at and now - at <= tonumber(ARGV[2]) then
    alive[#alive + 1] = nodes[i]
  end
end
if #alive > 1 then
  return alive
end
local known = redis.call('HMGET', KEYS[2], 'at', 'evicted')
local at = tonumber(known[1])
local evicted = tonumber(string.match(redis.call('INFO', 'stats'), 'evicted_keys:(%d+)') or 0)
if at and evicted > (tonumber(known[2]) or 0) then
  -- Nobody knows which logs there were.
  at = now + 1
end
return {
  'old', at and digits(at) or '', digits(now), replication_id(), tostring(evicted),
  redis.call('GET', KEYS[6]) or '0',
}
