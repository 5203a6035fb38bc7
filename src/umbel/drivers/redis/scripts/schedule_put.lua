-- Define or redefine entries. ARGV: base (name text)... Returns how many have changed.
local base, changed = ARGV[1], 0
ask(base)
local mark
for at = 2, #ARGV, 2 do
  local name, text = ARGV[at], ARGV[at + 1]
  local old = redis.call('HGET', base .. '.rows', name)
  if old ~= text then
    if not old then redis.call('HDEL', base .. '.states', name) end
    mark = (mark or last_mark(base, now_us())) + 1
    local score = string.format('%.0f', mark)
    redis.call('HSET', base, 'mark', score)
    redis.call('HSET', base .. '.rows', name, text)
    redis.call('ZADD', base .. '.marks', score, name)
    redis.call('ZREM', base .. '.removed', name)
    changed = changed + 1
  end
end
return changed
