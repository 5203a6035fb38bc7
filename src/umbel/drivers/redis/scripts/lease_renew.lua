-- ARGV: key value ttl(ms, 0: release). Returns 1 if the term is still held.
if redis.call('GET', ARGV[1]) ~= ARGV[2] then return 0 end
if ARGV[3] == '0' then
  redis.call('DEL', ARGV[1])
else
  redis.call('PEXPIRE', ARGV[1], ARGV[3])
end
return 1
