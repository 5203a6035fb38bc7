-- One message that is due now.
-- ARGV: base list raw
redis.call('LPUSH', ARGV[2], ARGV[3])
ring(ARGV[1], 1)
return 1
