-- What was counted in some minutes. ARGV: base minute(when it begins, in seconds)...
-- Returns {{tally, count, tally, count...} for each}. A key of another type is nothing of ours.
local found = {}
for i = 2, #ARGV do
  local counts = redis.pcall('HGETALL', ARGV[1] .. '.tally:' .. ARGV[i])
  found[i - 1] = counts.err and {} or counts
end
return found
