-- What every script on a board begins with, after log.lua.
--
-- The state of one board, under the same hash tag as its topic:
--   board        hash        name (JSON string); no: the board's number; next: the last number that a
--                            task of it was given; lists: ids of its lists, left to right, a line
--                            feed behind each; list:<id>: "<number> <title as JSON>"; task:<id>:
--                            "<list>\n<created>\n<updated>\n<title as JSON>"
--   board:order  sorted set  ids of the tasks of all lists, top to bottom: the score is the number of
--                            the list times 2^44, and the task's rank in it; and '' with the score 0,
--                            so that it is there while no task is
-- Numbers of lists are below 2^9, so scores are exact. Ranks stand 2^20 apart where nothing was moved
-- in between. Ids contain no control characters, so a line feed divides them.
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

-- Fills in what is left open in a text: "\u0001" stands for values['1'], … as in `board::view`.
local function fill(text, values)
  return (string.gsub(text, '"\\u000(%d)"', values))
end

-- KEYS 1 seq, 2 log, 3 meta, 4 births, 5 board, 6 board:order, 7 once:… of the request's idempotency
--      key, if it has one
-- ARGV 1 channel, 2 epoch to begin if one must, 3 sizes of the history, 4 history_ttl in
--      milliseconds, 5 position that the head must have or '', 6 idempotency window in
--      milliseconds, 7 the request's fingerprint; where a script tells of a change 9 the answer, and
--      8 and 10 what stands before and after it in the SSE text of the event, with what only the
--      script knows left open; then the command's own
local LOG_KEYS = { seq = KEYS[1], log = KEYS[2], meta = KEYS[3], births = KEYS[4], board = KEYS[5] }
local BOARD = KEYS[5]
local ORDER = KEYS[6]

local LIST_SCORES = 17592186044416
local RANK_MIDDLE = LIST_SCORES / 2
local RANK_STEP = 1048576

-- How many tasks on each side are given new scores at least, and how far apart these are then.
local ROOM_TASKS = 32
local ROOM_MIN = 1024

-- How many values one command is given at most.
local VALUES_MAX = 1000

local function read_task(task)
  local record = redis.call('HGET', BOARD, 'task:' .. task)
  if not record then
    return nil
  end
  local list, created, updated, title = string.match(record, '^([^\n]*)\n([^\n]*)\n([^\n]*)\n(.*)$')
  return { id = task, list = list, created = created, updated = updated, title = title }
end

local function write_task(task)
  local record = task.list .. '\n' .. task.created .. '\n' .. task.updated .. '\n' .. task.title
  redis.call('HSET', BOARD, 'task:' .. task.id, record)
end

-- The number of a list, or nil if the board has none of this id.
local function list_number(list)
  local text = redis.call('HGET', BOARD, 'list:' .. list)
  return text and tonumber(string.match(text, '^%d+'))
end

-- Scores and members of the order, written together.
local function add_to_order(pairs_of_order)
  for i = 1, #pairs_of_order, VALUES_MAX do
    local last = math.min(i + VALUES_MAX - 1, #pairs_of_order)
    redis.call('ZADD', ORDER, unpack(pairs_of_order, i, last))
  end
end

-- How many tasks are in lists with lower numbers, counted with ''.
local function tasks_before(number)
  return redis.call('ZCOUNT', ORDER, '-inf', '(' .. digits(number * LIST_SCORES))
end

local function list_length(number)
  local above = '(' .. digits((number + 1) * LIST_SCORES)
  return redis.call('ZCOUNT', ORDER, digits(number * LIST_SCORES), above)
end

-- How many tasks are above one in its list; nil if the order does not have it.
local function index_of(task, number)
  local rank = redis.call('ZRANK', ORDER, task)
  return rank and math.max(rank - tasks_before(number), 0)
end

-- The score of the n-th task of all, counted from 0.
local function score_of(n)
  return tonumber(redis.call('ZRANGE', ORDER, n, n, 'WITHSCORES')[2])
end

-- Where no number is left between two neighbours, gives those around them new scores: as few as there
-- is room for, so that this is rare and small however often tasks are put to the same place.
local function make_room(number, index, length)
  local before = tasks_before(number)
  local width = ROOM_TASKS
  while true do
    local first, last = math.max(index - width, 0), math.min(index + width, length) - 1
    local low = first == 0 and number * LIST_SCORES or score_of(before + first - 1)
    local high = last == length - 1 and (number + 1) * LIST_SCORES or score_of(before + last + 1)
    local step = math.floor((high - low) / (last - first + 2))
    local is_whole = first == 0 and last == length - 1
    if is_whole then
      step = RANK_STEP
      low = number * LIST_SCORES + RANK_MIDDLE - math.floor(length / 2) * step
    end
    if is_whole or step >= ROOM_MIN then
      local order = {}
      for _, task in ipairs(redis.call('ZRANGE', ORDER, before + first, before + last)) do
        low = low + step
        order[#order + 1] = digits(low)
        order[#order + 1] = task
      end
      add_to_order(order)
      return
    end
    width = width * 2
  end
end

-- Puts a task that the order does not have at an index of a list of this length.
local function put_at(task, number, index, length)
  local before = tasks_before(number)
  while true do
    local low = index == 0 and number * LIST_SCORES or score_of(before + index - 1)
    local high = index == length and (number + 1) * LIST_SCORES or score_of(before + index)
    local score = math.floor((low + high) / 2)
    if length > 0 and index == length then
      score = math.min(score, low + RANK_STEP)
    elseif length > 0 and index == 0 then
      score = math.max(score, high - RANK_STEP)
    end
    if score > low and score < high then
      redis.call('ZADD', ORDER, digits(score), task)
      return
    end
    make_room(number, index, length)
  end
end

-- Makes the order anew if it was evicted: tasks stand in their lists as they were made.
local function mend_order()
  if redis.call('EXISTS', ORDER) == 1 then
    return
  end
  local lists, tasks = {}, {}
  local all = redis.call('HGETALL', BOARD)
  for i = 1, #all, 2 do
    local kind, id = string.match(all[i], '^(%a+):(.*)$')
    if kind == 'list' then
      lists[id] = tonumber(string.match(all[i + 1], '^%d+'))
    elseif kind == 'task' then
      local made = tonumber(string.match(id, '^task%-(%d+)')) or 0
      tasks[#tasks + 1] = { id = id, list = string.match(all[i + 1], '^[^\n]*'), made = made }
    end
  end
  table.sort(tasks, function(one, other)
    return one.made < other.made or one.made == other.made and one.id < other.id
  end)
  local order = { '0', '' }
  local ranks = {}
  for _, task in ipairs(tasks) do
    local number = lists[task.list]
    if number then
      ranks[number] = (ranks[number] or RANK_MIDDLE - RANK_STEP) + RANK_STEP
      order[#order + 1] = digits(number * LIST_SCORES + ranks[number])
      order[#order + 1] = task.id
    end
  end
  add_to_order(order)
end

-- What a change begins with. Returns the answer to give at once, or nil to go on; that is
-- {'ok', seq, epoch, answer, 'replayed'}, {'key_reused'} or {'precondition_failed', seq, epoch}.
local function answer_at_once()
  local before = stored_result(KEYS[7], ARGV[7], ARGV[6])
  -- A board that does not exist is refused for that, and gets no epoch by it.
  if before or redis.call('EXISTS', BOARD) == 0 then
    return before
  end
  mend_order()
  return precondition_failed(ARGV[5], LOG_KEYS, look(LOG_KEYS), ARGV[2], 0, tonumber(ARGV[4]))
end

-- What a change ends with: the answer to give, and the event around it that tells of the change.
local function tell(answer, after)
  local retention = retention_of(ARGV[3], tonumber(ARGV[4]), 0)
  local entry = { '1', ARGV[8] .. answer .. after }
  local seq, epoch = append(LOG_KEYS, look(LOG_KEYS), ARGV[1], ARGV[2], entry, 1, retention)
  store_result(KEYS[7], ARGV[7], ARGV[6], seq, epoch, answer)
  return { 'ok', seq, epoch, answer }
end

-- The same for a change of a task, which is now at `index` of its list and was in the list `from`.
local function tell_of_task(task, index, from)
  local answer = fill(ARGV[9], {
    ['0'] = json_string(task.id),
    ['1'] = task.title,
    ['2'] = json_string(task.list),
    ['3'] = digits(index),
    ['4'] = '"' .. task.created .. '"',
    ['5'] = '"' .. task.updated .. '"',
  })
  return tell(answer, from and fill(ARGV[10], { ['6'] = json_string(from) }) or ARGV[10])
end
