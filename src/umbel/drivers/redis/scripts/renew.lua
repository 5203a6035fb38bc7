-- ARGV: base owner lease(ms) join('1') ; an owner that was reaped cannot come back under the same name.
redis.call('DEL', ARGV[1] .. '.full') -- a script that has written may go on when the memory is full: else nothing could empty it
local owners, owner = ARGV[1] .. '.owners', ARGV[2]
if redis.call('ZSCORE', ARGV[1] .. '.reaped', owner) then return 0 end
if ARGV[4] ~= '1' and not redis.call('ZSCORE', owners, owner) then return 0 end
redis.call('ZADD', owners, now_us() / 1000 + ARGV[3], owner)
return 1
