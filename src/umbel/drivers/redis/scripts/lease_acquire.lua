-- ARGV: key holder ttl(ms). Returns the fence of the new term, or nil if another holds the role.
local held = redis.call('GET', ARGV[1])
if held and string.match(held, '^%d+ (.*)$') ~= ARGV[2] then return false end
local fence = string.format('%.0f', now_us())
redis.call('SET', ARGV[1], fence .. ' ' .. ARGV[2], 'PX', ARGV[3])
return fence
