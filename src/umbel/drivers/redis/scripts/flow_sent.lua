-- ARGV: base (flow join)... Marks joins that are over as sent, and deletes their values.
local function delete_values(join)
  local values = key(join.flow, 'values')
  if redis.call('HLEN', values) == join.done then -- mostly: it is the only one that has any
    redis.call('UNLINK', values)
    return
  end
  for first = 0, join.size - 1, 1000 do
    local fields = {}
    for position = first, math.min(first + 1000, join.size) - 1 do
      fields[#fields + 1] = string.format('%s:%d', join.number, position)
    end
    redis.call('HDEL', values, unpack(fields))
  end
end

for at = 2, #ARGV, 2 do
  local join = read_join(ARGV[at], ARGV[at + 1])
  if join and join.decider and not join.sent then
    join.sent = true
    write_join(join)
    redis.call('ZREM', OVER, join.number .. ':' .. join.flow)
    delete_values(join)
  end
end
