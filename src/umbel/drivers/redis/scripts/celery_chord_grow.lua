-- Lets a chord in Celery's keys wait for one more part. A second run of the task that adds it changes nothing.
--
-- KEYS  .t  how many parts were added later
--       .s  how many there were when the chord was sent
--       .d  a set of the parts that were counted, and here of those that were added
--       .c  "done": the body was sent
-- ARGV  the part's id, milliseconds that the keys live
-- Returns 0: the chord is over.
local t, s, d, c = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, ttl = ARGV[1], tonumber(ARGV[2])
if redis.call('GET', c) == 'done' then return 0 end
if redis.call('SADD', d, 'added:' .. id) == 1 then redis.call('INCR', t) end
for _, key in ipairs({t, d, s}) do
  local left = redis.call('PTTL', key)
  if left >= 0 and left < ttl or (left == -1 and key ~= s) then redis.call('PEXPIRE', key, ttl) end
end
return 1
