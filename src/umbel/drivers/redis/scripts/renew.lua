-- ARGV: base owner lease(ms) join('1') known(the end of its lease that this owner was told last, '0': none)
-- Returns 0 if the owner is lost: one that was reaped cannot come back under the same name. Else the end of its lease, and 1 if the end
-- in the table was before the one it was told: then the table is an older one, of a replica that lagged or a snapshot.
redis.call('DEL', ARGV[1] .. '.full') -- a script that has written may go on when the memory is full: else nothing could empty it
local owners, owner = ARGV[1] .. '.owners', ARGV[2]
if redis.call('ZSCORE', ARGV[1] .. '.reaped', owner) then return 0 end
local before = redis.call('ZSCORE', owners, owner)
if ARGV[4] ~= '1' and not before then return 0 end
redis.call('ZADD', owners, now_us() / 1000 + ARGV[3], owner)
return {redis.call('ZSCORE', owners, owner), before and tonumber(before) < tonumber(ARGV[5]) and 1 or 0}
