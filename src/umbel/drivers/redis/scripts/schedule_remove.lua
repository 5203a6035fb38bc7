-- Remove rows and states, and forget removals that are older than kept. ARGV: base kept(us) name... Returns how many rows there were.
local base, removed = ARGV[1], 0
ask(base)
local now, mark = now_us(), nil
for at = 3, #ARGV do
  redis.call('HDEL', base .. '.states', ARGV[at])
  if redis.call('HDEL', base .. '.rows', ARGV[at]) == 1 then
    mark = (mark or last_mark(base, now)) + 1
    local score = string.format('%.0f', mark)
    redis.call('HSET', base, 'mark', score)
    redis.call('ZADD', base .. '.marks', score, ARGV[at])
    redis.call('ZADD', base .. '.removed', score, ARGV[at])
    removed = removed + 1
  end
end
local before = string.format('(%.0f', now - tonumber(ARGV[2]))
local old = redis.call('ZRANGEBYSCORE', base .. '.removed', '-inf', before, 'WITHSCORES', 'LIMIT', 0, 1000)
if #old > 0 then
  redis.call('HSET', base, 'floor', old[#old])
  for at = 1, #old, 2 do
    redis.call('ZREM', base .. '.removed', old[at])
    redis.call('ZREM', base .. '.marks', old[at])
  end
end
return removed
