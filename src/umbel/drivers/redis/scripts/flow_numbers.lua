-- ARGV: base flow. Returns the numbers of its nodes.
local numbers = {}
for _, field in ipairs(redis.call('HKEYS', key(ARGV[2], 'nodes'))) do
  if string.match(field, '^%d+$') then numbers[#numbers + 1] = tonumber(field) end
end
return numbers
