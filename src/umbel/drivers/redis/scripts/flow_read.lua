-- ARGV: base (flow field)... Returns what the fields of the nodes hold.
local found = {}
for at = 2, #ARGV, 2 do
  found[#found + 1] = redis.call('HGET', key(ARGV[at], 'nodes'), ARGV[at + 1])
end
return found
