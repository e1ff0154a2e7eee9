-- What scripts ask of the server itself, and how they write numbers down.

-- Numbers here are exact up to 2^53, but Lua's own conversion rounds at 14 digits.
local function digits(number)
  return string.format('%.0f', number)
end

-- Now, in milliseconds since 1970.
local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Which Redis process this is, among those that ruled over its data.
local function replication_id()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') or 'unknown'
end
