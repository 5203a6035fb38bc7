-- ARGV: key holder ttl(ms). Returns the fence of the new term, or nil if another holds the role.
local held = redis.call('GET', ARGV[1])
if held and string.match(held, '^%d+ (.*)$') ~= ARGV[2] then
  -- Where the clock was set back, a term would last for so much longer.
  if redis.call('PTTL', ARGV[1]) > tonumber(ARGV[3]) then redis.call('PEXPIRE', ARGV[1], ARGV[3]) end
  return false
end
local fence = next_fence(ARGV[1], now_us())
redis.call('SET', ARGV[1], fence .. ' ' .. ARGV[2], 'PX', ARGV[3])
return fence
