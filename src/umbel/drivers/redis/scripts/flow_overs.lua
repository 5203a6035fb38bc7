-- ARGV: base, ms that they are over at least, limit. A limit of 0 asks how many there may be.
-- Returns {flow, join, size, id of the part that failed or false, failure} of each: who is told answers for it from now on.
local now, limit = now_ms(), tonumber(ARGV[3])
local latest = string.format('%.0f', now - tonumber(ARGV[2]))
if limit == 0 then return redis.call('ZCOUNT', OVER, '-inf', latest) end
local overs = {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', OVER, '-inf', latest, 'LIMIT', 0, limit)) do
  local colon = string.find(member, ':', 1, true)
  local join = read_join(string.sub(member, colon + 1), string.sub(member, 1, colon - 1))
  if join and join.decider and not join.sent then
    enlist(join, now)
    overs[#overs + 1] = {join.flow, join.number, join.size, join.failed or false, join.failure}
  else -- it has expired
    redis.call('ZREM', OVER, member)
  end
end
return overs
