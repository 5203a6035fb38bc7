-- Take up to limit claims of one lapsed owner, newest first, and make them the caller's.
-- Idempotent by number, which only grows: a call repeated with the same number returns the same, a late copy nothing.
-- ARGV: base owner limit until(ms, by this clock; later nothing is taken) number known(see renew.lua)
-- Returns nil if the caller is lost, else {fence, more, tag, started, raw, ...}
redis.call('DEL', ARGV[1] .. '.full') -- a script that has written may go on when the memory is full: else nothing could empty it
local base, owner, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local owners, reaped = base .. '.owners', base .. '.reaped'
local lease = redis.call('ZSCORE', owners, owner)
if not lease then return false end
local now = now_us()
local reply = {string.format('%.0f', now), 0}
local mine, number = base .. '.claims:' .. owner, ARGV[5]
local last = split(redis.call('HGET', mine, 'recovery') or '0', ' ')
if tonumber(number) <= tonumber(last[1]) then
  for i = 2, last[1] == number and #last or 0 do
    reply[#reply + 1] = last[i]
    reply[#reply + 1] = redis.call('HEXISTS', mine, 's:' .. last[i])
    reply[#reply + 1] = redis.call('HGET', mine, last[i])
  end
  return reply
end
-- Invariant: nothing is taken by a table that is older than what its owners know: those who live seem to have lapsed in it.
if now / 1000 > tonumber(ARGV[4]) or tonumber(lease) < tonumber(ARGV[6]) then return reply end
local dead = redis.call('ZRANGE', reaped, 0, 0)[1]
if not dead then
  dead = redis.call('ZRANGEBYSCORE', owners, '-inf', now / 1000, 'LIMIT', 0, 2)
  dead = dead[dead[1] == owner and 2 or 1] -- never the caller itself, which may have lapsed, too
  if not dead then return reply end
  redis.call('ZREM', owners, dead)
  redis.call('ZADD', reaped, now / 1000, dead)
  redis.pcall('SREM', base .. '.idle', dead)
end
local theirs, note = base .. '.claims:' .. dead, {number}
local tags = claims_in(theirs)
reply[1] = next_fence(base, now)
local taken, size = 0, 0
while taken < math.min(limit, #tags) and size < MOST_BYTES do
  taken = taken + 1
  local from, raw = tags[taken][4], redis.call('HGET', theirs, tags[taken][4])
  -- sequence numbers of recovered claims start far above those of fetches
  local tag = (1000000000000 + redis.call('HINCRBY', mine, 'recovered', 1)) .. ':1:' .. tags[taken][3]
  local started = redis.call('HGET', theirs, 's:' .. from) and 1 or 0
  redis.call('HSET', mine, tag, raw)
  if started == 1 then redis.call('HSET', mine, 's:' .. tag, '1') end
  redis.call('HDEL', theirs, from, 's:' .. from)
  size = size + #raw
  note[#note + 1] = tag
  reply[#reply + 1] = tag
  reply[#reply + 1] = started
  reply[#reply + 1] = raw
end
redis.call('HSET', mine, 'recovery', table.concat(note, ' '))
if taken == #tags then
  forget(base, dead)
  redis.call('ZREM', reaped, dead)
end
local lapsed = redis.call('ZCOUNT', owners, '-inf', now / 1000)
if redis.call('ZCARD', reaped) > 0 or lapsed > 0 then reply[2] = 1 end
return reply
