-- What has changed since a mark. ARGV: base mark limit
-- Returns nil if nothing has, else {mark of the last change, 1 if it begins with all rows, more?, (mark name text-or-nil)...}.
local base, mark, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local known = redis.call('HMGET', base, 'mark', 'floor')
local last, floor = tonumber(known[1] or '0'), math.max(tonumber(known[2] or '0'), 1)
if mark > 0 and mark == last then return false end
local whole = not ((mark < 0 and mark >= -last) or (mark >= floor and mark <= last))
local since = whole and 0 or math.abs(mark)
local reply, size, count, after = {known[1] or '0', whole and 1 or 0, 0}, 0, 0, string.format('(%.0f', since)
while true do
  local found = redis.call('ZRANGEBYSCORE', base .. '.marks', after, '+inf', 'WITHSCORES', 'LIMIT', 0, 200)
  for at = 1, #found, 2 do
    local text = redis.call('HGET', base .. '.rows', found[at])
    if text or not whole then
      if count == limit or size > 4000000 then
        reply[3] = 1
        return reply
      end
      count, size = count + 1, size + #(text or '')
      reply[#reply + 1] = found[at + 1]
      reply[#reply + 1] = found[at]
      reply[#reply + 1] = text
    end
  end
  if #found < 400 then return reply end
  after = '(' .. found[#found]
end
