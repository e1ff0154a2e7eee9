-- What every script on a board begins with, after log.lua.
--
-- The state of one board, under the same hash tag as its topic:
--   board               hash    name (JSON string)
--   board:lists         list    ids of lists, left to right
--   board:titles        hash    id of a list -> its title (JSON string)
--   board:tasks         hash    id of a task -> "<list>\n<created>\n<updated>\n<title as JSON>"
--   board:order:<list>  list    ids of the tasks of a list, top to bottom
-- Ids contain no control characters, so a line feed divides them. Order keys are made from
-- board:order and a list's id, which only the script learns; they are in the same slot.
--
-- What is told of a change comes as text, written by `board::view`; what only the script knows is
-- left open in it, and filled in here.

-- A string without control characters as JSON.
local function json_string(text)
  return '"' .. string.gsub(text, '[\\"]', '\\%0') .. '"'
end

-- Milliseconds since 1970 as RFC 3339 in UTC. Days to dates by counting in eras of 400 years that
-- begin in March, so that the leap day comes last.
local function rfc3339(time)
  local seconds = math.floor(time / 1000)
  local days = math.floor(seconds / 86400) + 719468
  local era = math.floor(days / 146097)
  local day_of_era = days - era * 146097
  local year_of_era = math.floor((day_of_era - math.floor(day_of_era / 1460)
    + math.floor(day_of_era / 36524) - math.floor(day_of_era / 146096)) / 365)
  local day_of_year = day_of_era
    - (365 * year_of_era + math.floor(year_of_era / 4) - math.floor(year_of_era / 100))
  local month = math.floor((5 * day_of_year + 2) / 153)
  local day = day_of_year - math.floor((153 * month + 2) / 5) + 1
  month = month < 10 and month + 3 or month - 9
  local year = year_of_era + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day,
    math.floor(seconds / 3600) % 24, math.floor(seconds / 60) % 60, seconds % 60, time % 1000)
end

local function read_task(tasks_key, task)
  local record = redis.call('HGET', tasks_key, task)
  if not record then
    return nil
  end
  local list, created, updated, title = string.match(record, '^([^\n]*)\n([^\n]*)\n([^\n]*)\n(.*)$')
  return { id = task, list = list, created = created, updated = updated, title = title }
end

local function write_task(tasks_key, task)
  local record = task.list .. '\n' .. task.created .. '\n' .. task.updated .. '\n' .. task.title
  redis.call('HSET', tasks_key, task.id, record)
end

-- Fills in what is left open in a text: "\u0001" stands for values['1'], … as in `board::view`.
local function fill(text, values)
  return (string.gsub(text, '"\\u000(%d)"', values))
end

-- KEYS 1 seq, 2 log, 3 meta, 4 board, 5 births, 6 board:lists, 7 board:titles, 8 board:tasks, 9
--      once:… of the request's idempotency key, if it has one
-- ARGV 1 channel, 2 epoch to begin if one must, 3 history_entries_max, 4 history_ttl in
--      milliseconds, 5 prefix of board:order keys, 6 position that the head must have or '', 7
--      idempotency window in milliseconds, 8 the request's fingerprint; where a script tells of a
--      change 10 the answer, and 9 and 11 what stands before and after it in the SSE text of the
--      event, with what only the script knows left open; then the command's own
local ORDER = ARGV[5]
local LOG_KEYS = { seq = KEYS[1], log = KEYS[2], meta = KEYS[3], board = KEYS[4], births = KEYS[5] }

-- What a change begins with. Returns the answer to give at once, or nil to go on; that is
-- {'ok', seq, epoch, answer, 'replayed'}, {'key_reused'} or {'precondition_failed', seq, epoch}.
local function answer_at_once()
  local before = stored_result(KEYS[9], ARGV[8], ARGV[7])
  -- A board that does not exist is refused for that, and gets no epoch by it. One whose name was
  -- evicted still has its lists.
  if before or redis.call('EXISTS', KEYS[4], KEYS[7]) == 0 then
    return before
  end
  return precondition_failed(ARGV[6], LOG_KEYS, look(LOG_KEYS), ARGV[2], 0, tonumber(ARGV[4]))
end

-- What a change ends with: the answer to give, and the event around it that tells of the change.
local function tell(answer, after)
  local retention = { entries_max = ARGV[3], log_ttl = tonumber(ARGV[4]), ttl = 0 }
  local entry = { '1', ARGV[9] .. answer .. after }
  local seq, epoch = append(LOG_KEYS, look(LOG_KEYS), ARGV[1], ARGV[2], entry, 1, retention)
  store_result(KEYS[9], ARGV[8], ARGV[7], seq, epoch, answer)
  return { 'ok', seq, epoch, answer }
end

-- The same for a change of a task, which is now at `index` of its list and was in the list `from`.
local function tell_of_task(task, index, from)
  local answer = fill(ARGV[10], {
    ['1'] = task.title,
    ['2'] = json_string(task.list),
    ['3'] = digits(index),
    ['4'] = '"' .. task.created .. '"',
    ['5'] = '"' .. task.updated .. '"',
  })
  return tell(answer, from and fill(ARGV[11], { ['6'] = json_string(from) }) or ARGV[11])
end
