-- Shared by all scripts that put messages into a queue, which is described by its base ("{q}").

-- Wake up to n idle owners of a queue. A bell that nobody hears expires. One that cannot be rung fails no publish: who misses it
-- looks ten times a second.
local function ring(base, n)
  for _ = 1, math.min(n, 8) do
    local owner = redis.pcall('SPOP', base .. '.idle')
    if type(owner) ~= 'string' then return end
    local bell = base .. '.bell:' .. owner
    redis.pcall('LPUSH', bell, '1')
    redis.pcall('PEXPIRE', bell, 10000)
  end
end

