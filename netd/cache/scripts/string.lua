-- Do what a Redis command does to a string, without the header, and put that back. → the command's own reply
-- Counting is done here once Redis has refused to, for the header: nothing is counted, nor replied, where none is now,
-- as what the client has asked since, a SET or a DEL, has been done already.
local kept = redis.call('GET', key)
local value, flags = read(kept or '')
local headed = kept and value ~= kept
if not headed and string.find(ARGV[1], '^[ID][NE]CR') then return false end
if headed then redis.call('SET', key, value, 'KEEPTTL') end
local words = {}
for i, word in ipairs(ARGV) do words[i] = word end
table.insert(words, 2, key)
local reply = redis.pcall(unpack(words))
local now = redis.call('GET', key)
if now and (headed or (string.sub(now, 1, 4) == MARK and now ~= kept)) then
  redis.call('SET', key, keep(now, flags, 0), 'KEEPTTL')
end
return reply
