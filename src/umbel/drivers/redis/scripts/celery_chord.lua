-- Notes one part of a chord that a Celery producer has opened, in Celery's keys, and tells who ends the chord.
--
-- KEYS  .j  the parts: a sorted set by their place in the group, or a list in the order in which they came
--       .t  how many parts were added later
--       .s  how many there were when the chord was sent; set by the producer
--       .d  a set of the parts that were counted
--       .c  who sends the body, for a while; then "done"
-- ARGV  the part's id, the part, its place, milliseconds that the keys live, milliseconds of a claim, who claims,
--       is it a sorted set, if there is none yet
-- Returns false: it waits for more, or another sends the body. Else all parts, in order.
local j, t, s, d, c = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, part, place, ttl, claim, who, ordered = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7] == '1'
local kind = redis.call('TYPE', j)['ok']
if kind ~= 'none' then ordered = kind == 'zset' end
local claimed = redis.call('GET', c)
if claimed == 'done' then return false end
if redis.call('SADD', d, id .. ':' .. place) == 1 then
  if ordered then redis.call('ZADD', j, place, part) else redis.call('RPUSH', j, part) end
end
for _, key in ipairs({j, t, d}) do redis.call('PEXPIRE', key, ttl) end
local size = tonumber(redis.call('GET', s) or '')
if not size or redis.call(ordered and 'ZCARD' or 'LLEN', j) < size + tonumber(redis.call('GET', t) or '0') then return false end
if claimed and claimed ~= who then return false end
redis.call('SET', c, who, 'PX', claim)
return redis.call(ordered and 'ZRANGE' or 'LRANGE', j, 0, -1)
