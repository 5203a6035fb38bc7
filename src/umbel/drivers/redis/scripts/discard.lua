-- Delete letters. ARGV: base place name... Returns how many were there.
local gone = 0
ask_place(ARGV[1], ARGV[2])
for at = 3, #ARGV do
  if take_away(ARGV[1], ARGV[2], ARGV[at]) then gone = gone + 1 end
end
return gone
