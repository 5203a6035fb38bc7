-- Return up to limit entries of the list of revoked tasks, in the order of their marks.
-- ARGV: base mark limit
-- Returns {the mark of the last entry that was looked at, of the last there is, id, end (ms), signal, ...}.
local base, limit = ARGV[1], tonumber(ARGV[3])
local last = redis.call('GET', base) or '0'
local since = tonumber(ARGV[2]) <= tonumber(last) and ARGV[2] or '0'
local found = redis.call('ZRANGEBYSCORE', base .. '.marks', '(' .. since, '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
local now = now_us() / 1000
local reply = {#found > 0 and found[#found] or last, last}
for i = 1, #found, 2 do
  local ends = redis.call('ZSCORE', base .. '.ends', found[i])
  if ends and tonumber(ends) > now then
    reply[#reply + 1] = found[i]
    reply[#reply + 1] = ends
    reply[#reply + 1] = redis.call('HGET', base .. '.signals', found[i]) or ''
  end
end
return reply
