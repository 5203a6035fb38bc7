-- Shared by all scripts: pushing a message, storing a result, settling a claim.
-- Redis undoes nothing when a script fails half-way (a key is of another type, or not allowed to this user). Invariant: what takes a
-- message from its place asks before its first write whether the next place takes it, or puts it there first.
-- A queue is described by three arguments: base ("{q}"), and its ready lists joined by "\0".

-- Bytes of messages after which a step ends, having taken at least one: its reply must begin in time, and its repeat is as large.
local MOST_BYTES = 8000000

local function now_us()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

-- The fence of a claim, or of a term: the time in us, or one more than the fence before where the clock was set back. So a later claim
-- of a queue never looks older, and its result is never refused as late.
local function next_fence(base, now)
  local before = redis.pcall('GET', base .. '.fence')
  before = type(before) == 'string' and tonumber(before) or 0 -- of another type: nothing of ours, and SET replaces it
  local fence = string.format('%.0f', math.max(now, before + 1))
  redis.call('SET', base .. '.fence', fence, 'PX', 2592000000)
  return fence
end

local function split(text, separator)
  local parts, from = {}, 1
  while true do
    local at = string.find(text, separator, from, true)
    if not at then
      parts[#parts + 1] = string.sub(text, from)
      return parts
    end
    parts[#parts + 1] = string.sub(text, from, at - 1)
    from = at + #separator
  end
end

-- due is in ms, '' means now. step is the digit of the index of the ready list.
-- A delayed member is "<step><time of publishing, us><count in this call>:<message>": Redis sorts members of one due time by
-- their bytes, and so keeps the order in which they were published.
local delayed_here = 0

local function is_later(due, now)
  return due ~= '' and tonumber(due) > now / 1000
end

-- Raise now what a push with these arguments would raise.
local function ask_push(base, list, due, now)
  if is_later(due, now) then redis.call('ZCARD', base .. '.delayed') else redis.call('LLEN', list) end
end

local function push(base, list, due, step, raw, now)
  if is_later(due, now) then
    delayed_here = delayed_here + 1
    redis.call('ZADD', base .. '.delayed', due, string.format('%s%.0f%06d:', step, now, delayed_here) .. raw)
  else
    redis.call('LPUSH', list, raw)
    ring(base, 1)
  end
end

-- Move what is due to ready, at most limit messages (1000 at most: unpack has a limit), in the order of their due times; fewer if
-- they are large: it looks at one, two, four… Returns the error of a list that does not take them: they stay where they are.
local function promote(base, lists, limit, now)
  local delayed, moved, kept, size, ask, broken = base .. '.delayed', 0, 0, 0, 1, nil
  while moved + kept < limit and size < MOST_BYTES do
    local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now / 1000, 'LIMIT', kept, math.min(ask, limit - moved - kept))
    if #due == 0 then break end
    local runs = {}
    for i = 1, #due do
      local list = lists[tonumber(string.sub(due[i], 1, 1)) + 1] or lists[1]
      local run = runs[list] or {members = {}, raws = {}}
      runs[list] = run
      run.members[#run.members + 1] = due[i]
      run.raws[#run.raws + 1] = string.sub(due[i], string.find(due[i], ':', 1, true) + 1)
      size = size + #due[i]
    end
    for list, run in pairs(runs) do
      local pushed = redis.pcall('LPUSH', list, unpack(run.raws))
      if type(pushed) == 'table' then
        broken, kept = pushed, kept + #run.raws
      else
        moved = moved + redis.call('ZREM', delayed, unpack(run.members))
      end
    end
    ask = ask * 2
  end
  ring(base, moved)
  return broken
end

-- The rules of umbel.backend.ResultBackend.store. The state stands at the start of the document and the fence at its
-- end, as umbel writes them; a document in another serializer than JSON is protected only against a write over SUCCESS.
local FINAL = {SUCCESS = true, FAILURE = true, REVOKED = true}

local function refused(stored, state, fence)
  if not stored then return false end
  local stored_state = string.match(stored, '^{"status": ?"([^"]*)"')
  if stored_state == 'SUCCESS' then return true end
  if not stored_state and string.find(string.sub(stored, 1, 21), 'SUCCESS[^%w_]') then return true end
  local stored_fence = tonumber(string.match(stored, '"fence": ?(%d+)}$') or '0')
  if fence == 0 or stored_fence == 0 then return false end
  if fence < stored_fence then return true end
  return fence == stored_fence and FINAL[stored_state] and not FINAL[state]
end

-- ttl is in ms, '' means for ever. The channel has the name of the key, as Celery's readers expect.
local function store(key, channel, state, fence, ttl, meta)
  local stored = redis.pcall('GET', key)
  if type(stored) == 'table' then stored = nil end -- of another type: not a document of anybody's, and SET replaces it
  if refused(stored, state, tonumber(fence)) then return 0 end
  if ttl == '' then
    redis.call('SET', key, meta)
  else
    redis.call('SET', key, meta, 'PX', ttl)
  end
  redis.call('PUBLISH', channel, meta)
  return 1
end

-- Raise now what a change of this place would raise.
local function ask_place(base, place)
  local key = base .. '.' .. place
  redis.call('ZCARD', key)
  redis.call('HLEN', key .. ':data')
  redis.call('ZCARD', key .. ':index')
end

-- Put a message away (place: dead or parked). Its name is the time in us, or one more than the last: unique and in order.
-- The index has members of equal score, "i" id NUL name and, of the parked, "t" task NUL name, to be found by their beginning.
local function put_away(base, place, id, reason, evidence, step, raw, now)
  local key = base .. '.' .. place
  local last = tonumber(redis.call('ZREVRANGE', key, 0, 0)[1] or '0')
  local name = string.format('%.0f', math.max(now, last + 1))
  redis.call('ZADD', key, name, name)
  redis.call('HSET', key .. ':data', name, id .. '\0' .. reason .. '\0' .. evidence .. '\0' .. step .. raw)
  redis.call('ZADD', key .. ':index', 0, 'i' .. id .. '\0' .. name)
  if place == 'parked' then redis.call('ZADD', key .. ':index', 0, 't' .. reason .. '\0' .. name) end
end

-- Read what was put away: its step, itself, its id and its reason; nil if it is not there.
local function letter(base, place, name)
  local data = redis.call('HGET', base .. '.' .. place .. ':data', name)
  if not data then return nil end
  local id, reason, at = string.match(data, '^(%Z*)%z(%Z*)%z%Z*%z()')
  return string.sub(data, at, at), string.sub(data, at + 1), id, reason
end

-- Take a message that was put away out of its place. Returns its step and itself, or nil if it is not there.
local function take_away(base, place, name)
  local key = base .. '.' .. place
  local step, raw, id, reason = letter(base, place, name)
  if not step then return nil end
  redis.call('HDEL', key .. ':data', name)
  redis.call('ZREM', key, name)
  redis.call('ZREM', key .. ':index', 'i' .. id .. '\0' .. name, 't' .. reason .. '\0' .. name)
  return step, raw
end

-- The claims in a hash, newest first: {sequence number, count, step, tag}. A step is one digit, save in what an older umbel left.
local function claims_in(claims)
  local tags = {}
  for _, field in ipairs(redis.call('HKEYS', claims)) do
    local seq, i, step = string.match(field, '^(%d+):(%d+):(%d+)$')
    if seq then tags[#tags + 1] = {tonumber(seq), tonumber(i), #step == 1 and step or '0', field} end
  end
  table.sort(tags, function(a, b) return a[1] > b[1] or (a[1] == b[1] and a[2] > b[2]) end)
  return tags
end

-- Forget an owner whose claims were all taken. Invariant: nothing but its notes is deleted; a message that is in the hash stays.
local function forget(base, owner)
  redis.call('HDEL', base .. '.claims:' .. owner, 'last', 'recovery', 'recovered')
  redis.call('DEL', base .. '.bell:' .. owner)
end

-- What is counted of the settlements of this call: tally -> how often.
local tallied = {}

-- Add it to the hash of this minute, which is forgotten after three hours. What cannot be counted there fails no settlement.
local function count(base, now)
  if not next(tallied) then return end
  local seconds = math.floor(now / 1000000)
  local key = string.format('%s.tally:%.0f', base, seconds - seconds % 60)
  for tally, times in pairs(tallied) do
    redis.pcall('HINCRBY', key, tally, times)
  end
  redis.pcall('EXPIRE', key, 10800)
end

-- Remove a claim, and count that. Returns 1, or 0 if it is not held.
local function let_go(claims, tag, tally)
  if redis.call('HDEL', claims, tag, 's:' .. tag) == 0 then return 0 end
  if tally ~= '' then tallied[tally] = (tallied[tally] or 0) + 1 end
  return 1
end

-- Carry out one settlement, described by ARGV from position at. Returns 1 or 0 (claim not held), and the next position.
-- ARGV: tag verb nfields fields... nrecords (key channel state fence ttl meta)... nfollow (base list due step raw)...
-- A verb is one letter, and behind it what is counted: as an argument of its own it would cost each task more than it says.
-- A verb "A" has nothing behind it: an acknowledgement alone, as most are. With records or follow-ups it is "D".
-- Invariant: it is asked first whether all places take what goes there, and the claim is removed last.
local function settle(base, claims, lists, at, now)
  local tag, verb, tally = ARGV[at], string.sub(ARGV[at + 1], 1, 1), string.sub(ARGV[at + 1], 2)
  if verb == 'A' then return let_go(claims, tag, tally), at + 2 end
  local nfields = tonumber(ARGV[at + 2])
  local f = at + 3
  local nrecords = tonumber(ARGV[f + nfields])
  local r = f + nfields + 1
  local nfollow = tonumber(ARGV[r + nrecords * 6])
  local w = r + nrecords * 6 + 1
  local after = w + nfollow * 5
  if redis.call('HEXISTS', claims, tag) == 0 then return 0, after end
  for o = w, after - 1, 5 do ask_push(ARGV[o], ARGV[o + 1], ARGV[o + 2], now) end
  if verb == 'R' then
    ask_push(ARGV[f], ARGV[f + 1], ARGV[f + 2], now)
  elseif verb == 'G' then
    redis.call('LLEN', lists[tonumber(ARGV[f]) + 1] or lists[1])
  elseif verb ~= 'D' then
    ask_place(base, verb == 'B' and 'dead' or 'parked')
  end
  for i = 0, nrecords - 1 do
    local o = r + i * 6
    store(ARGV[o], ARGV[o + 1], ARGV[o + 2], ARGV[o + 3], ARGV[o + 4], ARGV[o + 5])
  end
  for i = 0, nfollow - 1 do
    local o = w + i * 5
    push(ARGV[o], ARGV[o + 1], ARGV[o + 2], ARGV[o + 3], ARGV[o + 4], now)
  end
  if verb == 'R' then
    push(ARGV[f], ARGV[f + 1], ARGV[f + 2], ARGV[f + 3], ARGV[f + 4], now)
  elseif verb == 'G' then
    redis.call('RPUSH', lists[tonumber(ARGV[f]) + 1] or lists[1], ARGV[f + 1])
    ring(base, 1)
  elseif verb == 'B' then
    put_away(base, 'dead', ARGV[f], ARGV[f + 1], ARGV[f + 2], string.sub(tag, -1), ARGV[f + 3], now)
  elseif verb == 'P' then
    put_away(base, 'parked', ARGV[f], ARGV[f + 1], ARGV[f + 2], string.sub(tag, -1), ARGV[f + 3], now)
  end
  return let_go(claims, tag, tally), after
end

-- Carry out n settlements, the first at position at. Returns a flag for each, and the position behind them.
-- Invariant: what was carried out before one that fails is counted. It is asked for again, and finds its claims gone.
local function settle_all(base, claims, lists, at, n, now)
  local flags = {}
  local done, why = pcall(function()
    for i = 1, n do flags[i], at = settle(base, claims, lists, at, now) end
  end)
  count(base, now)
  if not done then error(why, 0) end
  return flags, at
end
