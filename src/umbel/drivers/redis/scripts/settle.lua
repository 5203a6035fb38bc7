-- ARGV: base lists owner nsettle settlements... Returns nil if the owner is lost, else a flag for each.
redis.call('DEL', ARGV[1] .. '.full') -- a script that has written may go on when the memory is full: else nothing could empty it
local base, lists, owner = ARGV[1], split(ARGV[2], '\0'), ARGV[3]
if not redis.call('ZSCORE', base .. '.owners', owner) then return false end
return (settle_all(base, base .. '.claims:' .. owner, lists, 5, tonumber(ARGV[4]), now_us()))
