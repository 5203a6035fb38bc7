-- Give every claim of the owner back to the head of its list, and forget the owner. ARGV: base lists owner
redis.call('DEL', ARGV[1] .. '.full') -- a script that has written may go on when the memory is full: else nothing could empty it
local base, lists, owner = ARGV[1], split(ARGV[2], '\0'), ARGV[3]
local claims = base .. '.claims:' .. owner
if not redis.call('ZSCORE', base .. '.owners', owner) then return 0 end
local tags = claims_in(claims)
for _, tag in ipairs(tags) do
  redis.call('RPUSH', lists[tonumber(tag[3]) + 1] or lists[1], redis.call('HGET', claims, tag[4]))
  redis.call('HDEL', claims, tag[4], 's:' .. tag[4]) -- after the push: if that fails, the rest is still claimed, and recovered later
end
forget(base, owner)
redis.call('ZREM', base .. '.owners', owner)
redis.pcall('SREM', base .. '.idle', owner)
if #tags > 0 then ring(base, #tags) end
return #tags
