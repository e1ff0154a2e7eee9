-- Notes what a node serves, and forgets nodes that have not said so for long.
--
-- KEYS 1 hash node -> "<milliseconds since 1970> <report>"
-- ARGV 1 node, 2 report, or '' to withdraw it, 3 milliseconds after which a report is old
-- returns {node, report, …} of all nodes, if ARGV 1 is '' ; else {}

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[1] ~= '' then
  if ARGV[2] == '' then
    redis.call('HDEL', KEYS[1], ARGV[1])
  else
    redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', now) .. ARGV[2])
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
  end
  return {}
end
local living = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local at, report = string.match(all[i + 1], '^(%d+) (.*)$')
  if now - tonumber(at) <= tonumber(ARGV[3]) then
    living[#living + 1] = all[i]
    living[#living + 1] = report
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return living
