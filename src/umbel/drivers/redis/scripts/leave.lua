-- Give every claim of the owner back to the head of its list, and forget the owner. ARGV: base lists owner
redis.call('DEL', ARGV[1] .. '.full') -- a script that has written may go on when the memory is full: else nothing could empty it
local base, lists, owner = ARGV[1], split(ARGV[2], '\0'), ARGV[3]
local claims = base .. '.claims:' .. owner
if not redis.call('ZSCORE', base .. '.owners', owner) then return 0 end
local tags = {}
for _, field in ipairs(redis.call('HKEYS', claims)) do
  local seq, i, step = string.match(field, '^(%d+):(%d+):(%d)$')
  if seq then tags[#tags + 1] = {tonumber(seq), tonumber(i), tonumber(step), field} end
end
table.sort(tags, function(a, b) return a[1] > b[1] or (a[1] == b[1] and a[2] > b[2]) end)
for _, tag in ipairs(tags) do
  redis.call('RPUSH', lists[tag[3] + 1] or lists[1], redis.call('HGET', claims, tag[4]))
end
redis.call('DEL', claims, base .. '.bell:' .. owner)
redis.call('ZREM', base .. '.owners', owner)
redis.call('SREM', base .. '.idle', owner)
if #tags > 0 then ring(base, #tags) end
return #tags
