-- ARGV: base lists. Returns ready, delayed, claimed, parked, dead.
local ready, claimed = 0, 0
for _, list in ipairs(split(ARGV[2], '\0')) do ready = ready + redis.call('LLEN', list) end
for _, table_of_owners in ipairs({'.owners', '.reaped'}) do
  for _, owner in ipairs(redis.call('ZRANGE', ARGV[1] .. table_of_owners, 0, -1)) do
    for _, field in ipairs(redis.call('HKEYS', ARGV[1] .. '.claims:' .. owner)) do
      if string.match(field, '^%d+:%d+:%d+$') then claimed = claimed + 1 end
    end
  end
end
return {ready, redis.call('ZCARD', ARGV[1] .. '.delayed'), claimed,
        redis.call('ZCARD', ARGV[1] .. '.parked'), redis.call('ZCARD', ARGV[1] .. '.dead')}
