-- Delete what is ready and delayed. ARGV: base lists. Returns how many that were.
local keys, gone = split(ARGV[2], '\0'), redis.call('ZCARD', ARGV[1] .. '.delayed')
for _, list in ipairs(keys) do gone = gone + redis.call('LLEN', list) end
redis.call('UNLINK', ARGV[1] .. '.delayed', unpack(keys))
return gone
