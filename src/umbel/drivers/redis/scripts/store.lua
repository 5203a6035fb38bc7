-- ARGV: (key channel state fence ttl meta)... Returns a flag for each.
local flags = {}
for at = 1, #ARGV, 6 do
  flags[#flags + 1] = store(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5])
end
return flags
