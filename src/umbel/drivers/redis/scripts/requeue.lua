-- Put letters to the tails of their lists. ARGV: base lists place (name raw('': as it is))... Returns how many were there.
redis.call('DEL', ARGV[1] .. '.full') -- a script that has written may go on when the memory is full: else nothing could empty it
local base, lists, place, moved = ARGV[1], split(ARGV[2], '\0'), ARGV[3], 0
ask_place(base, place)
for at = 4, #ARGV, 2 do
  local step, raw = letter(base, place, ARGV[at])
  if step then -- Invariant: it is pushed first; where that fails, the letter stays
    redis.call('LPUSH', lists[tonumber(step) + 1] or lists[1], ARGV[at + 1] == '' and raw or ARGV[at + 1])
    take_away(base, place, ARGV[at])
    moved = moved + 1
  end
end
ring(base, moved)
return moved
