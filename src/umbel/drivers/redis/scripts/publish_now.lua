-- Messages that are due now, all for one list: one LPUSH for up to a few hundred of them.
-- ARGV: base list raw...
local n = #ARGV - 2
redis.call('LPUSH', ARGV[2], unpack(ARGV, 3))
ring(ARGV[1], n)
return n
