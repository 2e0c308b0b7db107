-- Keeps places: their holder lives. After a flush this makes them anew.
--
-- KEYS: 1 places taken (zset: id, expiry). ARGV: 1 life in us. 2 ...: ids. Returns how many are taken.
--
-- Must be one step with TIME: expiries are by Redis' clock.
local clock = redis.call('TIME')
local expiry = clock[1] * 1000000 + clock[2] + ARGV[1]
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], expiry, ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[1] / 1000))
return redis.call('ZCARD', KEYS[1])
