-- ARGV: base flow ttl (ms, '' for ever) count of nodes (number node)... (number size data)...
local flow, ttl, nodes = ARGV[2], ARGV[3], tonumber(ARGV[4])
local before, last = life(flow), 4 + 2 * nodes
for at = 5, last, 2 do
  redis.call('HSETNX', key(flow, 'nodes'), ARGV[at], ARGV[at + 1])
end
for at = last + 1, #ARGV, 3 do
  local number, size = ARGV[at], tonumber(ARGV[at + 1])
  redis.call('HSETNX', key(flow, 'nodes'), 'd' .. number, ARGV[at + 2])
  if redis.call('HEXISTS', key(flow, 'joins'), number) == 0 then
    local join = {flow = flow, number = number, size = size, done = 0, decider = size == 0 and -1 or nil, sent = false}
    write_join(join)
    if join.decider then enlist(join, now_ms()) end
  end
end
renew(flow, ttl, before)
