-- Shared by all scripts that put messages into a queue, which is described by its base ("{q}").

-- Wake up to n idle owners of a queue. A bell that nobody hears expires.
local function ring(base, n)
  for _ = 1, math.min(n, 8) do
    local owner = redis.call('SPOP', base .. '.idle')
    if not owner then return end
    local bell = base .. '.bell:' .. owner
    redis.call('LPUSH', bell, '1')
    redis.call('PEXPIRE', bell, 10000)
  end
end

