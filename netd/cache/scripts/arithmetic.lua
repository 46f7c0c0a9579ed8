-- Count in an item, with 64 bits without a sign: Lua's numbers are doubles, so two halves of 32 bits.
-- → {number, unique, ms left before, ms left after, made}, or {how else it ended}
local down, delta, compare, vivify, initial, new_exptime = unpack(ARGV)
local HALF = 4294967296

local function halves(digits)
  local high, low = 0, 0
  for i = 1, #digits do
    low = low * 10 + string.byte(digits, i) - 48
    local carry = math.floor(low / HALF)
    high, low = high * 10 + carry, low - carry * HALF
  end
  return high, low
end

local function decimal(high, low)
  local digits = {}
  repeat
    local rest = high % 10 * HALF + low
    high = math.floor(high / 10)
    low = math.floor(rest / 10)
    table.insert(digits, 1, string.char(48 + rest % 10))
  until high == 0 and low == 0
  return table.concat(digits)
end

local kept = redis.call('GET', key)
if not kept then
  if vivify == '' then return {'not found'} end
  write(initial, vivify)
  return {initial, unique(initial), -1, redis.call('PTTL', key), 1}
end
local value, flags, state = read(kept)
local digits = string.match(value .. ' ', '^%s*%+?(%d+)[%s%z]')
if not digits or #digits > 20 then return {'not a number'} end
local high, low = halves(digits)
if high >= HALF then return {'not a number'} end
if compare ~= '' and unique(kept) ~= compare then return {'exists'} end
local more_high, more_low = halves(delta)
if down == '1' then
  high, low = high - more_high, low - more_low
  if low < 0 then high, low = high - 1, low + HALF end
  if high < 0 then high, low = 0, 0 end
else
  high, low = high + more_high, low + more_low
  if low >= HALF then high, low = high + 1, low - HALF end
  high = high % HALF
end
local number = decimal(high, low)
kept = keep(number, flags, state)
redis.call('SET', key, kept, 'KEEPTTL')
local before = redis.call('PTTL', key)
if new_exptime ~= '' then touch(new_exptime) end
return {number, unique(kept), before, redis.call('PTTL', key), 0}
