-- What the scripts share: the layout of netd/cache/layout.py, exptimes, uniques. It is put before each of them.

local MARK, STALE, TAKEN = '\0ND\1', 1, 2
local key = KEYS[1]

local function read(kept)
  if #kept >= 9 and string.sub(kept, 1, 4) == MARK then
    return string.sub(kept, 10), string.sub(kept, 6, 9), string.byte(kept, 5)
  end
  return kept, '\0\0\0\0', 0
end

local function keep(value, flags, state)
  if flags ~= '\0\0\0\0' or state ~= 0 or string.sub(value, 1, 4) == MARK then
    return MARK .. string.char(state) .. flags .. value
  end
  return value
end

-- The first 64 bits of SHA-1 of the item, whether somebody has won it left aside.
local function unique(kept)
  local value, flags, state = read(kept)
  return string.sub(redis.sha1hex(keep(value, flags, state % 2)), 1, 16)
end

-- memcached's exptimes: 0 for ever, negative gone, up to thirty days relative, larger a Unix time.
local function touch(exptime)
  local number = tonumber(exptime)
  if number == 0 then redis.call('PERSIST', key)
  elseif number < 0 then redis.call('DEL', key)
  elseif number <= 2592000 then redis.call('EXPIRE', key, exptime)
  else redis.call('EXPIREAT', key, exptime) end
end

local function write(kept, exptime)
  redis.call('SET', key, kept)
  if exptime ~= '0' then touch(exptime) end
end
