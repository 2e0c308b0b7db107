-- What a host said: send nothing for a while, or fewer a second for a while.
--
-- KEYS: 1 state (hash: tat, hold, why, advised, advised_until). ARGV: 1 us to send nothing, 0 for none. 2 why.
--   3 us between requests, 0 for none. 4 for how many us.
-- Returns the us for which the host is held now.
--
-- Must be one step: of two holds the longer one counts, by Redis' own clock.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local lasts = 60000000
local hold = tonumber(redis.call('HGET', KEYS[1], 'hold') or 0) or 0
local asked = now + tonumber(ARGV[1])
if tonumber(ARGV[1]) > 0 and asked > hold then
  hold = asked
  redis.call('HSET', KEYS[1], 'hold', string.format('%d', hold), 'why', ARGV[2])
end
if tonumber(ARGV[3]) > 0 then
  redis.call('HSET', KEYS[1], 'advised', ARGV[3], 'advised_until', string.format('%d', now + tonumber(ARGV[4])))
  lasts = lasts + tonumber(ARGV[4])
end
local left = math.ceil((math.max(0, hold - now) + lasts) / 1000)
if left > redis.call('PTTL', KEYS[1]) then redis.call('PEXPIRE', KEYS[1], left) end
return math.max(0, hold - now)
