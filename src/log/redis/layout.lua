-- Looks whether keys of an earlier version are here, which had one hash of births for all topics.
--
-- KEYS 1 births, 2 hash node -> "<milliseconds since 1970> …", as nodes of that version say that they
--      live
-- ARGV 1 milliseconds after which a node that says nothing is gone
-- returns {} if there are none; {'alive', node, …} while nodes of that version are; else {'old', when
--         Redis was found empty, now, replication id, keys it has evicted}, times in milliseconds

if redis.call('EXISTS', KEYS[1]) == 0 then
  return {}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local alive = { 'alive' }
local nodes = redis.call('HGETALL', KEYS[2])
for i = 1, #nodes, 2 do
  local at = tonumber(string.match(nodes[i + 1], '^%d+'))
  if at and now - at <= tonumber(ARGV[1]) then
    alive[#alive + 1] = nodes[i]
  end
end
if #alive > 1 then
  return alive
end
local known = redis.call('HMGET', KEYS[1], 'at', 'evicted')
local at = tonumber(known[1])
local evicted = tonumber(string.match(redis.call('INFO', 'stats'), 'evicted_keys:(%d+)') or 0)
if not at or evicted > (tonumber(known[2]) or 0) then
  -- Nobody knows which logs there were.
  at = now + 1
end
local reign = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') or 'unknown'
return { 'old', string.format('%.0f', at), string.format('%.0f', now), reign, tostring(evicted) }
