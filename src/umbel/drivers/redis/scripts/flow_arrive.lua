-- ARGV: base ttl (flow join position id, 1 for a success and 0 for a failure, value or failure)...
-- Returns for each false, 0 if there is no such join, or {size, id of the part that failed or false, failure} for who answers for what
-- follows.
local ttl, now = ARGV[2], now_ms()
local joins, lives, replies = {}, {}, {}

local function note(join, position, id, succeeded, what)
  local values, field = key(join.flow, 'values'), join.number .. ':' .. position
  if succeeded then
    if redis.call('HSETNX', values, field, what) == 0 then return end
    join.done = join.done + 1
  else
    if redis.call('HEXISTS', values, field) == 1 then return end
    join.failed, join.failure = id, what
    redis.call('HSET', key(join.flow, 'nodes'), 'e' .. join.number, what)
    redis.call('HSET', key(join.flow, 'joins'), join.number .. ':f', id)
  end
  join.changed = true
  if join.failed or join.done == join.size then
    join.decider, join.failure = tonumber(position), join.failure or ''
  end
end

for at = 3, #ARGV, 6 do
  local flow, number, position = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local place = number .. ':' .. flow
  if joins[place] == nil then
    joins[place] = read_join(flow, number)
    if joins[place] and not lives[flow] then lives[flow] = life(flow) end
  end
  local join = joins[place]
  if join and not join.decider and position >= 0 and position < join.size then
    note(join, ARGV[at + 2], ARGV[at + 3], ARGV[at + 4] == '1', ARGV[at + 5])
  end
  local answers = join and join.decider == position and not join.sent
  replies[#replies + 1] = answers and {join.size, join.failed or false, join.failure} or not join and 0 or false
end
for _, join in pairs(joins) do
  if join and join.changed then
    write_join(join)
    if join.decider then enlist(join, now) end
  end
end
for flow, before in pairs(lives) do
  renew(flow, ttl, before)
end
return replies
