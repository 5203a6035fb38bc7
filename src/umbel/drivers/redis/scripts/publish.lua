-- ARGV: (base list due step raw)...
local now = now_us()
for at = 1, #ARGV, 5 do ask_push(ARGV[at], ARGV[at + 1], ARGV[at + 2], now) end
for at = 1, #ARGV, 5 do
  push(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], now)
end
return #ARGV / 5
