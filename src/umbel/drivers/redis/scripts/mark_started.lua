-- ARGV: base owner tag
redis.call('DEL', ARGV[1] .. '.full') -- a script that has written may go on when the memory is full: else nothing could empty it
local claims = ARGV[1] .. '.claims:' .. ARGV[2]
if not redis.call('ZSCORE', ARGV[1] .. '.owners', ARGV[2]) then return 0 end
if redis.call('HEXISTS', claims, ARGV[3]) == 0 then return 0 end
redis.call('HSET', claims, 's:' .. ARGV[3], '1')
return 1
