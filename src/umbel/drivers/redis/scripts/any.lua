-- Is anything ready, or due by this server's clock? ARGV: base lists
for _, list in ipairs(split(ARGV[2], '\0')) do
  if redis.call('EXISTS', list) == 1 then return 1 end
end
return redis.call('ZCOUNT', ARGV[1] .. '.delayed', '-inf', now_us() / 1000) > 0 and 1 or 0
