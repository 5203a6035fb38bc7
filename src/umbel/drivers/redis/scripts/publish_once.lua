-- Messages with keys: one whose key is remembered is left out.
-- ARGV: (base list due step raw key ttl(ms))... Returns how many were stored.
local now, stored = now_us(), 0
for at = 1, #ARGV, 7 do
  ask_push(ARGV[at], ARGV[at + 1], ARGV[at + 2], now)
  redis.call('EXISTS', ARGV[at] .. '.once:' .. ARGV[at + 5]) -- raises now if this user may not use the key
end
for at = 1, #ARGV, 7 do
  if redis.call('SET', ARGV[at] .. '.once:' .. ARGV[at + 5], '1', 'NX', 'PX', ARGV[at + 6]) then
    push(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], now)
    stored = stored + 1
  end
end
return stored
