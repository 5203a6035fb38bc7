-- Move up to 500 parked messages of the named tasks to ready, oldest first. ARGV: base lists key...
-- The caller names the keys; one that is gone is passed over. Each key is followed by its step.
local base, lists, moved = ARGV[1], split(ARGV[2], '\0'), 0
for at = 3, #ARGV, 2 do
  local data = redis.call('HGET', base .. '.parked:data', ARGV[at])
  if data then
    local cut = string.find(data, '\0', 1, true)
    redis.call('LPUSH', lists[tonumber(ARGV[at + 1]) + 1] or lists[1], string.sub(data, cut + 1))
    redis.call('HDEL', base .. '.parked:data', ARGV[at])
    redis.call('ZREM', base .. '.parked', ARGV[at])
    moved = moved + 1
  end
end
if moved > 0 then ring(base, moved) end
return moved
