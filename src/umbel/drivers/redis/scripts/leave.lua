-- Give every claim of the owner back to the head of its list, and forget the owner. ARGV: base lists owner
-- Returns how many are left, as they are large: then it is called again.
redis.call('DEL', ARGV[1] .. '.full') -- a script that has written may go on when the memory is full: else nothing could empty it
local base, lists, owner = ARGV[1], split(ARGV[2], '\0'), ARGV[3]
local claims = base .. '.claims:' .. owner
if not redis.call('ZSCORE', base .. '.owners', owner) then return 0 end
redis.pcall('SREM', base .. '.idle', owner)
local tags = claims_in(claims)
local moved, size = 0, 0
while moved < #tags and size < MOST_BYTES do
  moved = moved + 1
  local tag = tags[moved]
  local raw = redis.call('HGET', claims, tag[4])
  size = size + #raw
  redis.call('RPUSH', lists[tonumber(tag[3]) + 1] or lists[1], raw)
  redis.call('HDEL', claims, tag[4], 's:' .. tag[4]) -- after the push: if that fails, the rest is still claimed, and recovered later
end
ring(base, moved)
if moved < #tags then return #tags - moved end
forget(base, owner)
redis.call('ZREM', base .. '.owners', owner)
return 0
