-- Put letters to the tails of their lists. ARGV: base lists place (name raw('': as it is))... Returns how many were there.
local base, lists, moved = ARGV[1], split(ARGV[2], '\0'), 0
for at = 4, #ARGV, 2 do
  local step, raw = take_away(base, ARGV[3], ARGV[at])
  if step then
    redis.call('LPUSH', lists[tonumber(step) + 1] or lists[1], ARGV[at + 1] == '' and raw or ARGV[at + 1])
    moved = moved + 1
  end
end
ring(base, moved)
return moved
