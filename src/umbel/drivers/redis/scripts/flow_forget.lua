-- ARGV: base flow... Deletes all of them.
for at = 2, #ARGV do
  local flow = ARGV[at]
  for _, number in ipairs(redis.call('HKEYS', key(flow, 'joins'))) do
    redis.call('ZREM', OVER, number .. ':' .. flow)
  end
  redis.call('UNLINK', key(flow, 'nodes'), key(flow, 'joins'), key(flow, 'values'))
end
