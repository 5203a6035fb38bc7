-- Says of how many parts a chord in Celery's keys is, before its first part can end.
--
-- KEYS  .s  how many there were when the chord was sent
--       .c  "done": the body was sent
-- ARGV  how many, milliseconds that the key lives
if redis.call('GET', KEYS[2]) == 'done' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
