-- Write states, all or none. ARGV: base fence (name slot runs sent id)... Returns 0 if somebody with a larger fence has written.
local base, fence = ARGV[1], tonumber(ARGV[2])
ask(base)
if tonumber(redis.call('HGET', base, 'fence') or '0') > fence then return 0 end
redis.call('HSET', base, 'fence', ARGV[2])
for at = 3, #ARGV, 5 do
  local old = redis.call('HGET', base .. '.states', ARGV[at])
  if not old or tonumber(string.match(old, '^%S+')) <= tonumber(ARGV[at + 1]) then
    redis.call('HSET', base .. '.states', ARGV[at], ARGV[at + 1] .. ' ' .. table.concat(ARGV, ' ', at + 2, at + 4))
  end
end
return 1
