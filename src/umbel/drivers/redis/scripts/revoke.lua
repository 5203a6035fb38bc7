-- Enter ids into the list of revoked tasks.
-- ARGV: base ttl (ms) signal id...
-- The mark of an entry is a time in microseconds, or one more than the last mark, if that is larger: so it grows over the
-- loss of all these keys, too. Everything expires with the last entry.
local base, ttl, signal = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local marks, ends, signals = base .. '.marks', base .. '.ends', base .. '.signals'
redis.call('ZCARD', marks) -- raises before the first write what a later one would raise: a key of another type
redis.call('HLEN', signals)
local now = now_us()
local old = redis.call('ZRANGEBYSCORE', ends, '-inf', now / 1000, 'LIMIT', 0, 1000)
if #old > 0 then
  redis.call('ZREM', ends, unpack(old))
  redis.call('ZREM', marks, unpack(old))
  redis.call('HDEL', signals, unpack(old))
end
local mark = math.max(tonumber(redis.call('GET', base) or '0'), now)
for i = 4, #ARGV do
  mark = mark + 1
  redis.call('ZADD', marks, string.format('%.0f', mark), ARGV[i])
  redis.call('ZADD', ends, 'GT', string.format('%.0f', now / 1000 + ttl), ARGV[i])
  if signal ~= '' then redis.call('HSET', signals, ARGV[i], signal) end
end
redis.call('SET', base, string.format('%.0f', mark), 'KEEPTTL')
local life = math.max(ttl, redis.call('PTTL', base))
for _, key in ipairs({base, marks, ends, signals}) do redis.call('PEXPIRE', key, life) end
return #ARGV - 3
