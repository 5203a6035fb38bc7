-- Shared by the scripts of schedules. A schedule is described by its base ("{umbel.schedule:<name>}"):
--   <base>          hash  mark: of the last change; floor: who knows less may have missed a removal that is forgotten;
--                         fence: of the last who wrote states
--   <base>.rows     hash  name -> text
--   <base>.marks    zset  name -> mark of its last change, removed ones included
--   <base>.removed  zset  name of a removed one -> its mark
--   <base>.states   hash  name -> slot, blank, runs, blank, task id
-- A mark is a time in microseconds, or one more than the last mark, if that is larger: so it grows over the loss of all these keys, too.

local function now_us()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

-- Raise now what a later write would raise: a key of another type.
local function ask(base)
  redis.call('HLEN', base)
  redis.call('HLEN', base .. '.rows')
  redis.call('HLEN', base .. '.states')
  redis.call('ZCARD', base .. '.marks')
  redis.call('ZCARD', base .. '.removed')
end

-- Returns the mark before the next change.
local function last_mark(base, now)
  if redis.call('HSETNX', base, 'floor', string.format('%.0f', now)) == 1 then return now end
  return math.max(tonumber(redis.call('HGET', base, 'mark') or '0'), now)
end
