-- ARGV: (key copy ttl)... Returns a flag for each: 1 if this copy is the one that has started.
local flags = {}
for at = 1, #ARGV, 3 do
  local there = redis.call('GET', ARGV[at])
  flags[#flags + 1] = (not there or there == ARGV[at + 1]) and 1 or 0
  if flags[#flags] == 1 then
    redis.call('SET', ARGV[at], ARGV[at + 1])
    if ARGV[at + 2] ~= '' then redis.call('PEXPIRE', ARGV[at], ARGV[at + 2]) end
  end
end
return flags
