-- Shared by the scripts of workflows. The keys of a flow lie in one slot, that of ARGV[1], the base:
--   <base>:<flow>.nodes   hash  number -> node; d<join> -> what is known of it; e<join> -> why it failed; g<join>:<key> -> where it has grown
--   <base>:<flow>.joins   hash  number -> "size:done:decider:sent"; <number>:f -> the id of the part that failed
--   <base>:<flow>.values  hash  <join>:<position> -> value, until the join is sent
--   <base>.over           zset  <join>:<flow> of those that are over and not sent, by the time since when somebody answers for it, in ms
-- The decider is the position of the part that ended the join, -1 if it had no parts; nothing while it is not over.
-- Invariant: all keys of a flow expire together, and the zset not before any flow that is in it.

local BASE = ARGV[1]
local OVER = BASE .. '.over'

local function key(flow, name)
  return BASE .. ':' .. flow .. '.' .. name
end

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function read_join(flow, number)
  local found = redis.call('HGET', key(flow, 'joins'), number)
  if not found then return false end
  local size, done, decider, sent = string.match(found, '^(%d+):(%d+):(%-?%d*):(%d)$')
  local join = {flow = flow, number = number, size = tonumber(size), done = tonumber(done), decider = tonumber(decider), sent = sent == '1'}
  if join.decider then
    join.failed = redis.call('HGET', key(flow, 'joins'), number .. ':f')
    join.failure = join.failed and redis.call('HGET', key(flow, 'nodes'), 'e' .. number) or ''
  end
  return join
end

local function write_join(join)
  local decider = join.decider and string.format('%d', join.decider) or ''
  local state = string.format('%d:%d:%s:%s', join.size, join.done, decider, join.sent and '1' or '0')
  redis.call('HSET', key(join.flow, 'joins'), join.number, state)
end

-- Put a join that is over among those that wait for what follows them. A new zset has a time to live: `renew` makes it longer.
local function enlist(join, now)
  local is_new = redis.call('EXISTS', OVER) == 0
  redis.call('ZADD', OVER, string.format('%.0f', now), join.number .. ':' .. join.flow)
  if is_new then redis.call('PEXPIRE', OVER, 1000) end
end

-- How long the flow lives from now: ms, -1 for ever, -2 there is none.
local function life(flow)
  local nodes, joins = redis.call('PTTL', key(flow, 'nodes')), redis.call('PTTL', key(flow, 'joins'))
  if nodes == -1 or joins == -1 then return -1 end
  return math.max(nodes, joins)
end

-- Let it live for ttl ms ('' is for ever), or as long as before this script, if that is longer.
local function renew(flow, ttl, before)
  local forever = before == -1 or ttl == ''
  local longest = string.format('%.0f', math.max(before, tonumber(ttl) or 0))
  if before ~= -1 then -- else all that is new is for ever already
    for _, name in ipairs({'nodes', 'joins', 'values'}) do
      if forever then redis.call('PERSIST', key(flow, name)) else redis.call('PEXPIRE', key(flow, name), longest) end
    end
  end
  local over = redis.call('PTTL', OVER)
  if over >= 0 and forever then
    redis.call('PERSIST', OVER)
  elseif over >= 0 and over < tonumber(longest) then
    redis.call('PEXPIRE', OVER, longest)
  end
end
