-- Settle, promote, claim. Idempotent by seq, which only grows; refused when the owner is not in the table.
-- ARGV: base lists owner seq limit nparked task... nsettle settlements...
-- Returns nil if the owner is lost, else {fence, settled flags, tag, raw, tag, raw, ...}.
redis.call('DEL', ARGV[1] .. '.full') -- a script that has written may go on when the memory is full: else nothing could empty it
local base, lists, owner = ARGV[1], split(ARGV[2], '\0'), ARGV[3]
local seq, limit, nparked = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local nsettle = tonumber(ARGV[7 + nparked])
if not redis.call('ZSCORE', base .. '.owners', owner) then return false end
local claims = base .. '.claims:' .. owner
local now = now_us()
local reply = {string.format('%.0f', now), ''}

-- last = seq, fence, settled flags and the tags of the last call
local last = split(redis.call('HGET', claims, 'last') or '0', ' ')
if last[1] == seq then
  reply[1], reply[2] = last[2], last[3]
  for i = 4, #last do
    reply[#reply + 1] = last[i]
    reply[#reply + 1] = redis.call('HGET', claims, last[i]) or ''
  end
end
-- A call with a smaller number is a copy that comes late: nobody waits for its reply, so it claims nothing.
if tonumber(seq) <= tonumber(last[1]) then return reply end

reply[2] = table.concat((settle_all(base, claims, lists, 8 + nparked, nsettle, now)))
promote(base, lists, 100, now)

local note, fields = {seq, reply[1], reply[2]}, {}
local found, size, broken = 0, 0, nil
local function claim(step, raw)
  found, size = found + 1, size + #raw
  local tag = seq .. ':' .. found .. ':' .. step
  fields[#fields + 1] = tag
  fields[#fields + 1] = raw
  reply[#reply + 1] = tag
  reply[#reply + 1] = raw
  note[#note + 1] = tag
end
if nparked > 0 then ask_place(base, 'parked') end
for i = 7, 6 + nparked do
  local first = '[t' .. ARGV[i] .. '\0'
  local members = redis.call('ZRANGEBYLEX', base .. '.parked:index', first, '(t' .. ARGV[i] .. '\1', 'LIMIT', 0, limit - found)
  for _, member in ipairs(members) do
    if size >= MOST_BYTES then break end
    claim(take_away(base, 'parked', string.sub(member, -16)))
  end
end
for step = 1, #lists do
  while found < limit and size < MOST_BYTES do
    local popped = redis.pcall('RPOP', lists[step])
    if type(popped) == 'table' then broken = popped end -- a key of another type: what was taken before it must not be lost
    if type(popped) ~= 'string' then break end
    claim(step - 1, popped)
  end
end
fields[#fields + 1] = 'last'
if found > 0 then
  reply[1] = next_fence(base, now)
  note[2] = reply[1]
end
fields[#fields + 1] = table.concat(note, ' ')
redis.call('HSET', claims, unpack(fields))
if found == 0 and broken then return broken end
if found == 0 and limit > 0 then
  redis.pcall('SADD', base .. '.idle', owner)
  redis.pcall('PEXPIRE', base .. '.idle', 60000)
end
return reply
