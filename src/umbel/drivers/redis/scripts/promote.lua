-- ARGV: base lists limit. Returns the due time (ms) of the next message, or nil.
redis.call('DEL', ARGV[1] .. '.full') -- a script that has written may go on when the memory is full: else nothing could empty it
local broken = promote(ARGV[1], split(ARGV[2], '\0'), tonumber(ARGV[3]), now_us())
if broken then return broken end
local next = redis.call('ZRANGE', ARGV[1] .. '.delayed', 0, 0, 'WITHSCORES')
return next[2] or false
