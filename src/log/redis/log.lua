-- What every script on a topic begins with: finding or making its epoch, and appending.
--
-- The keys of one topic share the hash tag {<topic>}:
--   seq    string   how many entries were ever appended
--   log    stream   the newest entries; entry ids are <seq>-0; fields e (epoch), t (milliseconds
--                   since 1970), j (1 for JSON data, 0 for text), f (SSE text after the id line),
--                   perhaps b (bytes of all texts that were counted, up to this one)
--   meta   string   "<epoch> <replication id> <floor> <+|-> @<since>-<began>[ -<deleted>][ <past
--                   epoch>:<its last seq>]…[ #<counted>-<gone>]", newest past first
--   once:… string   "<SHA-1 of the request> <seq> <epoch> <answer>": what a request with this
--                   idempotency key was answered; expires after the idempotency window
--
-- An epoch is the time in which one Redis process (its replication id) wrote to one log. Where the
-- stored replication id differs, a new epoch begins and the old one is noted with the last seq it
-- reached on this server. `floor` is the seq up to which entries are known to be gone although no
-- trimming took them (the log key expired or was evicted). `+` says that the topic is a board's.
-- `deleted`: the seq of the last deletion. `began`: when this log did, in milliseconds since 1970;
-- whoever found no log of its name between `since` and then has missed none.
--
-- Bytes of a log are counted from its first entry on that is larger than its share: before that, as many
-- entries as there may be are not too many bytes. `counted`: of all texts since then and of those that
-- were there, or 0 if that is still to be found out; `gone`: how many of them at least stood before the
-- oldest entry that is left.
--
-- A topic that nobody has written to has no keys. That a log of its name was lost meanwhile is known
-- from one key for all topics of a hash slot, which lies in that slot:
--   births   hash   at: when this slot was found empty; reign, evicted: the replication id of the
--                   process that was last looked at, and how many keys it had evicted; born: when
--                   any log may have begun of which the hash says nothing else; for each of sixteen
--                   groups of topics when a log of one of them was last begun. Milliseconds since
--                   1970
--
-- A script on a topic declares seq, log and meta, all of which exist where there is a log: as long as
-- a slot is on its way to another server, a script that declares a key that is not there has to
-- wait. Where there is no log, or meta does not say whether the topic is a board's, it answers
-- {'which'}, and is called again with births and board as well.

-- As in position/log_history.rs: how many past epochs are noted whoever may need them, and at most.
local EPOCHS_KEPT = 64
local EPOCHS_MAX = 256

-- As SEQ_MAX in position.rs: up to it numbers are exact.
local SEQ_MAX = 9007199254740991

-- A number as it was stored, or nil: what is none, or not exact, counts as missing.
local function exact_number(stored)
  local number = stored and string.match(stored, '^%d+$') and tonumber(stored)
  return number and number <= SEQ_MAX and number or nil
end

-- As in position.rs: clocks that are wrong tell later times, which count as this one.
local UNWRITTEN_AT_MAX = 2821109907455

-- Whoever found no log of this name at the time that this returns, or later, has missed none: what
-- expired meanwhile was begun earlier, what was flushed or evicted was so before. now: milliseconds;
-- ttl: after which logs expire. Returns that time, and the topic's group in births.
local function unwritten_since(births_key, seq_key, now, ttl)
  local group = string.sub(redis.sha1hex(seq_key), 1, 1)
  local known = redis.call('HMGET', births_key, 'at', 'reign', 'evicted', 'born', group)
  local at, reign, evicted = tonumber(known[1]), known[2], tonumber(known[3]) or 0
  local born = math.max(tonumber(known[4]) or 0, tonumber(known[5]) or 0)
  local reign_now = replication_id()
  local stats = redis.call('INFO', 'stats')
  local evicted_now = tonumber(string.match(stats, 'evicted_keys:(%d+)') or 0)
  -- Each process counts by itself. Where another one was looked at before, only if neither has ever
  -- evicted anything is it sure that nothing was.
  local may_be_evicted = evicted_now > evicted or reign ~= reign_now and evicted_now + evicted > 0
  if not at or may_be_evicted then
    -- Nobody knows which logs there were. After this millisecond, in which one may have been.
    at = now + 1
    redis.call('HSET', births_key, 'at', digits(at), 'reign', reign_now, 'evicted', evicted_now)
  elseif reign ~= reign_now or evicted_now ~= evicted then
    redis.call('HSET', births_key, 'reign', reign_now, 'evicted', evicted_now)
  end
  -- One that is gone has expired, so it was begun before the time that logs live.
  return math.min(math.max(at, math.min(born, now - ttl)), UNWRITTEN_AT_MAX), group
end

-- The seq of the oldest entry of a log that stands at head, or nil. Numbers have no holes, so it can be
-- counted: to read it would cost as much as the entry is large.
local function oldest_seq(log_key, head)
  local length = redis.call('XLEN', log_key)
  return length > 0 and math.max(head - length + 1, 1) or nil
end

-- Its id, or ''.
local function oldest_id(log_key, head)
  local oldest = oldest_seq(log_key, head)
  return oldest and digits(oldest) .. '-0' or ''
end

-- Reads from a log's entries which epochs they belong to: what is left of the past when meta is
-- missing. Returns them as in meta, and the seq up to which entries belong to none of them.
local function epochs_of(log_key)
  local function at(id)
    local entry = redis.call('XRANGE', log_key, id, '+', 'COUNT', 1)[1]
    return tonumber(string.match(entry[1], '^(%d+)')), entry[2][2]
  end
  local newest = redis.call('XREVRANGE', log_key, '+', '-', 'COUNT', 1)[1]
  if not newest then
    return '', 0
  end
  local oldest = at('-')
  local last = tonumber(string.match(newest[1], '^(%d+)'))
  local past_epochs = ''
  local count = 0
  while last >= oldest and count < EPOCHS_MAX do
    local _, epoch = at(digits(last))
    past_epochs = past_epochs .. ' ' .. epoch .. ':' .. digits(last)
    count = count + 1
    -- Entries of one epoch stand together, so the first of them is found by halving.
    local low, high = oldest, last
    while low < high do
      local middle = math.floor((low + high) / 2)
      local _, its = at(digits(middle))
      if its == epoch then
        high = middle
      else
        low = middle + 1
      end
    end
    last = low - 1
  end
  return past_epochs, last >= oldest and last or 0
end

-- A meta in which the deletion of everything before it has this number. Bytes are counted anew.
local function with_deletion(meta, seq)
  local epoch, replid, before, rest = string.match(meta, '^(%w+) (%w+) %d+ ([+-] @%d+%-%d+)(.*)$')
  rest = string.gsub(string.gsub(rest, ' %-%d+', ''), ' #.*$', '')
  return epoch .. ' ' .. replid .. ' ' .. seq .. ' ' .. before .. ' -' .. seq .. rest
end

-- Looks at a topic. keys: seq, log, meta, and births and board where they are declared. Returns what
-- is there, for `open`, or nil if those two are needed and not declared.
local function look(keys)
  local seq = redis.call('GET', keys.seq)
  local topic = {
    has_log = redis.call('EXISTS', keys.log) == 1,
    seq = exact_number(seq),
    meta = redis.call('GET', keys.meta),
  }
  topic.is_written = topic.has_log or seq ~= false
  local sign
  if topic.meta then
    topic.epoch, topic.reign, topic.floor, topic.past =
      string.match(topic.meta, '^(%w+) (%w+) (%d+)(.*)$')
    sign = string.match(topic.past or '', '^ ([+-])')
  end
  if not keys.board then
    if not sign or not topic.seq and not topic.has_log then
      return nil
    end
    topic.is_board = sign == '+'
    return topic
  end
  topic.is_board = redis.call('EXISTS', keys.board) == 1
  if topic.epoch and sign ~= (topic.is_board and '+' or '-') then
    -- It is a board's since, or no longer, or of a version that did not note it.
    topic.past = string.gsub(topic.past, '^ [+-]', '')
    topic.past = (topic.is_board and ' +' or ' -') .. topic.past
    topic.meta = topic.epoch .. ' ' .. topic.reign .. ' ' .. topic.floor .. topic.past
    redis.call('SET', keys.meta, topic.meta, 'KEEPTTL')
  end
  return topic
end

-- What is told of a topic without a log instead of head, meta and the oldest entry: the time that
-- counts as now, '', and since when none was missed, both in milliseconds since 1970; behind them the
-- topic's group in births.
local function unwritten(keys, ttl)
  local now = milliseconds()
  local since, group = unwritten_since(keys.births, keys.seq, now, ttl)
  return digits(math.min(math.max(now, since), UNWRITTEN_AT_MAX)), '', digits(since), group
end

-- Finds the epoch of a topic that was looked at, or begins one. ttl: milliseconds after which keys
-- made here expire, 0 for never; lifetime: after which logs of topics expire. Returns epoch, head,
-- meta.
local function open(keys, topic, new_epoch, ttl, lifetime)
  local seq, has_log = topic.seq, topic.has_log
  local epoch, floor, past = topic.epoch, topic.floor, topic.past
  local current_replid = replication_id()
  if seq and epoch and topic.reign == current_replid and (has_log or seq <= tonumber(floor)) then
    return epoch, seq, topic.meta
  end

  -- Something is missing or another process took over: a new epoch.
  local before = past and string.match(past, '^ [+-] (@%d+%-%d+)')
  local deleted = past and string.match(past, '^ [+-] @%d+%-%d+( %-%d+)') or ''
  local head = seq or 0
  if not seq and has_log then
    -- The log itself knows how far it got, even if entries were trimmed.
    local info = redis.call('XINFO', 'STREAM', keys.log)
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then
        head = tonumber(string.match(info[i + 1], '^(%d+)'))
      end
    end
  end
  if seq or has_log then
    floor = has_log and tonumber(floor or '0') or head
  else
    -- Nothing is left but perhaps the memory of something: a new log, which has no past.
    epoch = nil
    floor = 0
    local began, _, since, group = unwritten(keys, lifetime)
    before = '@' .. since .. '-' .. began
    deleted = ''
    -- After the latest time at which anybody can have found none.
    redis.call('HSET', keys.births, group, digits(tonumber(began) + 1))
  end
  -- Where that is forgotten, nobody knows who was there before.
  before = before or '@1-0'
  local past_epochs = ''
  if epoch then
    past_epochs = ' ' .. epoch .. ':' .. digits(head)
    local count = 1
    local oldest = has_log and oldest_seq(keys.log, head) or head + 1
    for past_epoch, last in string.gmatch(past, ' (%w+):(%d+)') do
      -- An epoch cannot have reached further than this server knows: what a deposed or a
      -- restarted master had beyond it is gone.
      last = math.min(tonumber(last), head)
      -- Whoever stands in it can go on if nothing after its end is gone.
      local is_needed = last + 1 >= oldest
      if count < (is_needed and EPOCHS_MAX or EPOCHS_KEPT) then
        past_epochs = past_epochs .. ' ' .. past_epoch .. ':' .. digits(last)
        count = count + 1
      else
        -- Nobody may be sent entries whose epoch is not known: their position would be judged as
        -- lost, again and again.
        floor = math.max(floor, last)
      end
    end
  elseif has_log then
    past_epochs, floor = epochs_of(keys.log)
  end
  topic.seq, topic.is_written, topic.epoch, topic.reign = head, true, new_epoch, current_replid
  topic.floor = digits(floor)
  -- Where meta is lost, nobody knows how large the entries are that are left.
  local counts = epoch and (string.match(past, ' #%d+%-%d+') or '') or has_log and ' #0-0' or ''
  topic.past = (topic.is_board and ' + ' or ' - ') .. before .. deleted .. past_epochs .. counts
  topic.meta = new_epoch .. ' ' .. current_replid .. ' ' .. topic.floor .. topic.past
  redis.call('SET', keys.seq, digits(head))
  redis.call('SET', keys.meta, topic.meta)
  if ttl > 0 then
    redis.call('PEXPIRE', keys.seq, ttl)
    redis.call('PEXPIRE', keys.meta, ttl)
  end
  return new_epoch, head, topic.meta
end

-- Looks at all entries of a log, some at a time. Returns counted and gone as they have to be.
local function count(log_key)
  local counted, kept, from = 0, 0, '-'
  while true do
    local entries = redis.call('XRANGE', log_key, from, '+', 'COUNT', 16)
    if #entries == 0 then
      return counted, counted - kept
    end
    for _, entry in ipairs(entries) do
      local bytes = #(entry[2][8] or '')
      -- One that was counted before goes on where it was.
      counted = exact_number(entry[2][10]) or counted + bytes
      kept = kept + bytes
    end
    from = '(' .. entries[#entries][1]
  end
end

-- Removes the oldest entries of a log that stands at head if it has more than bytes_max, but never the
-- newest. Returns how many bytes stood before the oldest that is left, or at least so many.
--
-- Each entry that is looked at costs as much as it is large. So none is while there cannot be too many
-- bytes; then those are that go and say nothing of what came before them, and of the others a few, by
-- halving. A sixteenth more goes than must, so that it is not soon again.
local function trim_bytes(log_key, head, counted, gone, bytes_max)
  if counted - gone <= bytes_max then
    return gone
  end
  -- Bytes that came before this entry, or nil, and its own.
  local function at(seq)
    local fields = redis.call('XRANGE', log_key, digits(seq) .. '-0', '+', 'COUNT', 1)[1][2]
    local through, bytes = exact_number(fields[10]), #(fields[8] or '')
    return through and through - bytes, bytes
  end
  local low = math.max(head - redis.call('XLEN', log_key) + 1, 1)
  local before, bytes = at(low)
  if before then
    gone = before
  else
    counted, gone = count(log_key)
  end
  if low == head or counted - gone <= bytes_max then
    return gone
  end
  local enough = bytes_max - math.floor(bytes_max / 16)
  while not before and low < head and counted - gone > enough do
    gone, low = gone + bytes, low + 1
    before, bytes = at(low)
    gone = before or gone
  end
  local high = before and head or low
  while low < high do
    local middle = math.floor((low + high) / 2)
    before = at(middle)
    if before and counted - before <= enough then
      high = middle
    else
      low = middle + 1
    end
  end
  redis.call('XTRIM', log_key, 'MINID', '=', digits(high) .. '-0')
  return at(high) or gone
end

-- What is kept of a log. sizes: "<entries at most> <bytes of their texts at most>"; log_ttl, ttl: of the
-- log, and of seq and meta, both in milliseconds, ttl 0 for never.
local function retention_of(sizes, log_ttl, ttl)
  local entries_max, bytes_max = string.match(sizes, '^(%d+) (%d+)$')
  return { entries_max = entries_max, bytes_max = tonumber(bytes_max), log_ttl = log_ttl, ttl = ttl }
end

-- Appends entries to a topic that was looked at, and announces them. entries: flat list of '1' for
-- JSON or '0' for text, and SSE text after the id line, from index first on. retention: see
-- retention_of. Returns seq of the last, epoch.
local function append(keys, topic, channel, new_epoch, entries, first, retention)
  local seq_key, log_key, meta_key = keys.seq, keys.log, keys.meta
  local epoch, _, meta = open(keys, topic, new_epoch, retention.ttl, retention.log_ttl)
  local now = digits(milliseconds())
  -- Whether there is one that is larger than its share, or was.
  local counts = string.find(meta, ' #', 1, true)
  local share = retention.bytes_max / retention.entries_max
  for i = first + 1, #entries, 2 do
    counts = counts or #entries[i] > share
  end
  local counted, gone
  if counts then
    counted, gone = string.match(meta, ' #(%d+)%-(%d+)$')
    counted, gone = exact_number(counted), exact_number(gone)
    if not counted or not gone or counted == 0 then
      counted, gone = count(log_key)
    end
  end
  local seq
  for i = first, #entries, 2 do
    local rest = entries[i + 1]
    seq = digits(redis.call('INCR', seq_key))
    local so_far = {}
    if counts then
      counted = counted + #rest
      so_far = { 'b', digits(counted) }
    end
    redis.call('XADD', log_key, 'MAXLEN', '=', retention.entries_max, seq .. '-0',
      'e', epoch, 't', now, 'j', entries[i], 'f', rest, unpack(so_far))
    redis.call('PUBLISH', channel, now .. '\nid: ' .. seq .. '-' .. epoch .. '\n' .. rest)
  end
  redis.call('PEXPIRE', log_key, retention.log_ttl)
  if counts then
    gone = trim_bytes(log_key, tonumber(seq), counted, gone, retention.bytes_max)
    meta = string.gsub(meta, ' #.*$', '') .. ' #' .. digits(counted) .. '-' .. digits(gone)
    redis.call('SET', meta_key, meta)
  end
  if retention.ttl > 0 then
    redis.call('PEXPIRE', seq_key, retention.ttl)
    redis.call('PEXPIRE', meta_key, retention.ttl)
  end
  return seq, epoch
end

-- What the request was answered before, if it was. once_key: nil if the request has no idempotency
-- key. window: milliseconds. Returns the answer to give, or nil if the request is new.
local function stored_result(once_key, request, window)
  local kept = once_key and redis.call('GET', once_key)
  if not kept then
    return nil
  end
  local digest, seq, epoch, answer = string.match(kept, '^(%x+) (%d+) (%w+) (.*)$')
  if digest ~= redis.sha1hex(request) then
    return { 'key_reused' }
  end
  -- Also a write, so that WAIT after a repetition waits for what it repeats.
  redis.call('PEXPIRE', once_key, window)
  return { 'ok', seq, epoch, answer, 'replayed' }
end

-- Keeps what a request is answered, if it has an idempotency key.
local function store_result(once_key, request, window, seq, epoch, answer)
  if once_key then
    local kept = redis.sha1hex(request) .. ' ' .. seq .. ' ' .. epoch .. ' ' .. answer
    redis.call('SET', once_key, kept, 'PX', window)
  end
end

-- Whether the newest entry is the one at the position if_match; '' matches always. The position may
-- be of an earlier epoch that no entry followed, or of before the first entry. Returns nil if so, or
-- the answer to give; its epoch is '@<milliseconds>' where there is no log, and none is made.
local function precondition_failed(if_match, keys, topic, new_epoch, ttl, lifetime)
  if if_match == '' then
    return nil
  end
  local seq, of = string.match(if_match, '^(%d+)-(%w+)$')
  local unwritten_at = #of == 8 and tonumber(of, 36) or -1
  local epoch, head, meta, since, began
  if topic.is_written then
    epoch, head, meta = open(keys, topic, new_epoch, ttl, lifetime)
    since, began = string.match(meta, ' @(%d+)%-(%d+)')
  else
    began, meta, since = unwritten(keys, lifetime)
    epoch, head = '@' .. began, 0
  end
  local reached
  if of == epoch then
    reached = head
  elseif since and unwritten_at >= tonumber(since) and unwritten_at <= tonumber(began) then
    reached = 0
  else
    reached = tonumber(string.match(meta, ' ' .. of .. ':(%d+)') or -1)
  end
  if tonumber(seq) == head and reached >= head then
    return nil
  end
  return { 'precondition_failed', digits(head), epoch }
end
