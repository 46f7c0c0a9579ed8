-- Look at an item: touch it, renew it, make it. → {kept, ms left before, ms left after, won, made}, or nothing.
local new_exptime, vivify, recache, touch_first = unpack(ARGV)

local kept = redis.call('GET', key)
if not kept then
  if vivify == '' then return false end
  kept = keep('', '\0\0\0\0', TAKEN)
  write(kept, vivify)
  return {kept, -1, redis.call('PTTL', key), 1, 1}
end
local before = redis.call('PTTL', key)
if new_exptime ~= '' then touch(new_exptime) end
local after = redis.call('PTTL', key)
local value, flags, state = read(kept)
local won = 0
if state < TAKEN then
  local left = touch_first == '1' and after or before
  if state == STALE or (recache ~= '' and left >= 0 and left < tonumber(recache) * 1000) then
    won = 1
    if after ~= -2 then redis.call('SET', key, keep(value, flags, state + TAKEN), 'KEEPTTL') end
  end
end
return {kept, before, after, won, 0}
