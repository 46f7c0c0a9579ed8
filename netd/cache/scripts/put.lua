-- Write an item over what is there. → {how it ended, the new unique}
local mode, value, flags, exptime, compare, invalidate, largest = unpack(ARGV)

local function written(kept, new_exptime)
  if new_exptime then write(kept, new_exptime) else redis.call('SET', key, kept, 'KEEPTTL') end
  return {'done', unique(kept)}
end

local kept = redis.call('GET', key)
if mode == 'set' then
  if not kept then return {'not found'} end
  if unique(kept) == compare then return written(keep(value, flags, 0), exptime) end
  if invalidate ~= '1' then return {'exists'} end
  local _, _, state = read(kept)
  return written(keep(value, flags, STALE + (state >= TAKEN and TAKEN or 0)))
end
if not kept then return {'not stored'} end
if compare ~= '' and unique(kept) ~= compare then return {'exists'} end
local old, old_flags = read(kept)
if #old + #value > tonumber(largest) then return {'not stored'} end
return written(keep(mode == 'append' and old .. value or value .. old, old_flags, 0))
