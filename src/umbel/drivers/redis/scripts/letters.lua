-- A page of what was put away: of the dead the newest first, of the parked the oldest first; it ends early when it grows large.
-- ARGV: base place after('' or a name) id('' or a task id) limit. Returns {name, data, name, data, ...}.
local key, after, id, limit = ARGV[1] .. '.' .. ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local newest, names, reply, size = ARGV[2] == 'dead', nil, {}, 0
if id == '' then
  local from = after == '' and (newest and '+inf' or '-inf') or '(' .. after
  names = redis.call(newest and 'ZREVRANGEBYSCORE' or 'ZRANGEBYSCORE', key, from, newest and '-inf' or '+inf', 'LIMIT', 0, limit)
else
  local first, last = '[i' .. id .. '\0', '(i' .. id .. '\1'
  if after ~= '' and newest then last = '(i' .. id .. '\0' .. after end
  if after ~= '' and not newest then first = '(i' .. id .. '\0' .. after end
  if newest then
    names = redis.call('ZREVRANGEBYLEX', key .. ':index', last, first, 'LIMIT', 0, limit)
  else
    names = redis.call('ZRANGEBYLEX', key .. ':index', first, last, 'LIMIT', 0, limit)
  end
end
for _, name in ipairs(names) do
  local short = string.sub(name, -16)
  local data = redis.call('HGET', key .. ':data', short)
  reply[#reply + 1] = short
  reply[#reply + 1] = data
  size = size + #data
  if size > 4000000 then break end
end
return reply
