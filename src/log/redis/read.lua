-- Reads a stretch of a topic's log, with what is needed to judge positions at the same moment.
--
-- KEYS 1 seq, 2 log, 3 meta, then births, if a call without it was answered {'which'}
-- ARGV 1 first seq, 2 last seq, 3 entries at most, 4 bytes at most (one entry may exceed it), 5
--      history_ttl in milliseconds
-- returns {head, meta, id of the oldest entry or '', entries}, each entry {id, {field, value, …}};
--         {what `unwritten` says, {}} if the topic has no log; {} if something of it is missing; or
--         {'which'}

local stored = redis.call('GET', KEYS[1])
local head = exact_number(stored)
local meta = redis.call('GET', KEYS[3])
if not head or not meta then
  if stored or redis.call('EXISTS', KEYS[2]) == 1 then
    return {}
  end
  if not KEYS[4] then
    return { 'which' }
  end
  local keys = { seq = KEYS[1], births = KEYS[4] }
  local now, none, since = unwritten(keys, tonumber(ARGV[5]))
  return { now, none, since, {} }
end
local seq = digits(head)
local entries = {}
local first = tonumber(ARGV[1])
local last = math.min(tonumber(ARGV[2]), head)
local left = tonumber(ARGV[3])
local room = tonumber(ARGV[4])
local largest = 0
-- One first, to learn how large they are, then more and more of them: what is read and does not fit is
-- read again next time, and entries can be large.
local count = 1
while left > 0 and first <= last and (#entries == 0 or room >= largest) do
  if largest > 0 then
    count = math.min(count * 2, 8, math.max(1, math.floor(room / largest)))
  end
  local found = redis.call('XRANGE', KEYS[2], digits(first) .. '-0', digits(last) .. '-0',
    'COUNT', math.min(count, left))
  if #found == 0 then
    break
  end
  for _, entry in ipairs(found) do
    local bytes = #entry[2][8]
    if bytes > room and #entries > 0 then
      return { seq, meta, oldest_id(KEYS[2], head), entries }
    end
    room = room - bytes
    largest = math.max(largest, bytes)
    entries[#entries + 1] = entry
    left = left - 1
    first = tonumber(string.match(entry[1], '^(%d+)')) + 1
  end
end
return { seq, meta, oldest_id(KEYS[2], head), entries }
