-- Keeps places, and what their holder declares of the host: it lives, though it may not ask for a while. After a flush
-- this makes both anew.
--
-- KEYS: 1 places taken (zset: id, expiry), 2 declared limits (zset: c:CONCURRENCY or i:INTERVAL, expiry).
-- ARGV: 1 life of a place in us. 2 life of a declared limit in us. 3 concurrency. 4 microseconds between requests, 0 for
--   any rate. 5 ...: ids. Returns how many are taken.
--
-- Must be one step with TIME: expiries are by Redis' clock.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
for i = 5, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[1] / 1000))
redis.call('ZADD', KEYS[2], now + ARGV[2], 'c:' .. ARGV[3])
if tonumber(ARGV[4]) > 0 then redis.call('ZADD', KEYS[2], now + ARGV[2], 'i:' .. ARGV[4]) end
redis.call('PEXPIRE', KEYS[2], math.ceil(ARGV[2] / 1000))
return redis.call('ZCARD', KEYS[1])
