-- Remove an item, or mark it as stale. → how it ended
local compare, invalidate, new_exptime = unpack(ARGV)

local kept = redis.call('GET', key)
if not kept then return 'not found' end
if compare ~= '' and unique(kept) ~= compare then return 'exists' end
if invalidate == '1' then
  local value, flags = read(kept)
  redis.call('SET', key, keep(value, flags, STALE), 'KEEPTTL')
  if new_exptime ~= '' then touch(new_exptime) end
else
  redis.call('DEL', key)
end
return 'done'
