-- Reads a stretch of a topic's log, with what is needed to judge positions at the same moment.
--
-- KEYS 1 seq, 2 log, 3 meta
-- ARGV 1 first seq, 2 last seq, 3 entries at most, 4 bytes at most (one entry may exceed it)
-- returns {head, meta, id of the oldest entry or '', entries}, each entry {id, {field, value, …}};
--         or {} if the topic has no log

local seq = redis.call('GET', KEYS[1])
local meta = redis.call('GET', KEYS[3])
if not seq or not meta then
  return {}
end
local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)
local entries = {}
local bytes = 0
local first = tonumber(ARGV[1])
local last = math.min(tonumber(ARGV[2]), tonumber(seq))
local left = tonumber(ARGV[3])
-- A few first, to learn how large they are.
local count = 16
while left > 0 and first <= last do
  local found = redis.call('XRANGE', KEYS[2], digits(first) .. '-0', digits(last) .. '-0',
    'COUNT', math.min(count, left))
  if #found == 0 then
    break
  end
  for _, entry in ipairs(found) do
    bytes = bytes + #entry[2][8]
    if bytes > tonumber(ARGV[4]) and #entries > 0 then
      return { seq, meta, oldest[1][1], entries }
    end
    entries[#entries + 1] = entry
    left = left - 1
    first = tonumber(string.match(entry[1], '^(%d+)')) + 1
  end
  local average = math.max(1, bytes / #entries)
  count = math.max(1, math.floor((tonumber(ARGV[4]) - bytes) / average))
end
return { seq, meta, oldest[1] and oldest[1][1] or '', entries }
