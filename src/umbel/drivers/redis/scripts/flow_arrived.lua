-- ARGV: base flow join start limit, and bytes after which a page ends, having at least one value. Returns values.
local join = read_join(ARGV[2], ARGV[3])
if not join or not join.decider or join.failed or join.sent then return {} end
local first, limit, left, values = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), {}
for position = first, math.min(first + limit, join.size) - 1 do
  local value = redis.call('HGET', key(join.flow, 'values'), string.format('%s:%d', join.number, position))
  if not value then break end
  values[#values + 1] = value
  left = left - #value
  if left <= 0 then break end
end
return values
