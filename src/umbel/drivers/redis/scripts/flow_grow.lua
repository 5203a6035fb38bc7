-- ARGV: base flow join by key. Returns the first of the new positions, the same for the same key; false if it is over or unknown.
local join = read_join(ARGV[2], ARGV[3])
if not join or join.decider then return false end
local nodes, field = key(join.flow, 'nodes'), 'g' .. join.number .. ':' .. ARGV[5]
local position = redis.call('HGET', nodes, field)
if not position then
  position = string.format('%d', join.size)
  join.size = join.size + tonumber(ARGV[4])
  local before = life(join.flow)
  redis.call('HSET', nodes, field, position)
  write_join(join)
  if before >= 0 then renew(join.flow, string.format('%.0f', before), before) end
end
return tonumber(position)
