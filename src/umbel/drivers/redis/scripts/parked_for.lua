-- Of which of these tasks are messages parked? ARGV: base task... Returns their numbers.
local index, found = ARGV[1] .. '.parked:index', {}
for i = 2, #ARGV do
  if #redis.call('ZRANGEBYLEX', index, '[t' .. ARGV[i] .. '\0', '(t' .. ARGV[i] .. '\1', 'LIMIT', 0, 1) > 0 then found[#found + 1] = i - 2 end
end
return found
