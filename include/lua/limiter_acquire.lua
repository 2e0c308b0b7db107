-- Asks for one request to a host: a free place of those it bears at once, and a time at its rate.
--
-- KEYS: 1 state (hash: tat, hold, why, advised, advised_until), 2 places taken (zset: id, expiry), 3 who waits (zset: id,
--   last asked; ids sort by when they first asked), 4 declared limits (zset: c:CONCURRENCY or i:INTERVAL, expiry).
-- ARGV: 1 id, beginning with the time of its first ask; '' the first time. 2 suffix that makes a new id unique.
--   3 concurrency. 4 microseconds between requests, 0 for any rate. 5 life of a place in us. 6 how far ahead a time is
--   given out in us. 7 life of a declared limit in us. 8 the burst in us: as many requests as the rate allows in it.
--   9 ...: ids of places that are given back.
-- Returns {verdict, us, id, why}: 0 granted, to be sent in `us`; 1 the host is held for `us`; 2 over its rate, ask again in
--   `us`; 3 all places are taken, ask again in `us`.
--
-- Must be one step: two nodes that read the same counts would both take the last place, or the same time. The rate is
-- GCRA, the generic cell rate algorithm of ITU-T I.371 (annex A, virtual scheduling): `tat` is the theoretical arrival
-- time of the next request, the tolerance is the burst less one interval, none where an interval is longer. Without it a
-- process that wakes up a few milliseconds late loses all the times in between. All times are Redis' own, so no node's
-- clock counts.
-- The longest interval, in us, that is taken from others: a day.
local LONGEST = 86400000000
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
for i = 9, #ARGV do redis.call('ZREM', KEYS[2], ARGV[i]) end

local id = ARGV[1]
if id == '' then id = string.format('%017d', now) .. ARGV[2] end

-- The strictest of what the sources that ask this host declare; one that has not asked for a while does not count.
local concurrency, interval = tonumber(ARGV[3]), tonumber(ARGV[4])
local mine = {['c:' .. ARGV[3]] = true}
if interval > 0 then mine['i:' .. ARGV[4]] = true end
local declared = redis.call('ZRANGE', KEYS[4], 0, -1, 'WITHSCORES')
local outlived = false
for i = 1, #declared, 2 do
  local member, left = declared[i], declared[i + 1] - now
  if left <= 0 then
    outlived = true
  else
    if mine[member] and left > ARGV[7] / 2 then mine[member] = nil end
    -- Whoever declares a limit writes it for as long as three of its intervals at most: what lives longer, or is no limit,
    -- is nothing that we have written.
    local kind, digits = string.match(member, '^([ci]):(%d+)$')
    local value = tonumber(digits)
    local lives = kind == 'i' and value and math.max(ARGV[7], 3 * value) or math.max(ARGV[7], 3 * LONGEST)
    if not value or value < 1 or value > LONGEST or left > lives then
      redis.call('ZREM', KEYS[4], member)
    elseif kind == 'c' then
      concurrency = math.min(concurrency, value)
    else
      interval = math.max(interval, value)
    end
  end
end
if outlived then redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now) end
for member in pairs(mine) do
  redis.call('ZADD', KEYS[4], now + ARGV[7], member)
  redis.call('PEXPIRE', KEYS[4], math.ceil(ARGV[7] / 1000))
end

local state = redis.call('HMGET', KEYS[1], 'tat', 'hold', 'why', 'advised', 'advised_until')
local hold = tonumber(state[2] or 0) or 0
if hold > now then return {1, hold - now, id, state[3] or ''} end
local advised, until_us = tonumber(state[4] or 0) or 0, tonumber(state[5] or 0) or 0
if until_us > now and advised <= LONGEST then interval = math.max(interval, advised) end

redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
-- What no call can have written by this clock was written before the clock was set back.
redis.call('ZREMRANGEBYSCORE', KEYS[2], '(' .. string.format('%d', now + ARGV[5]), '+inf')
local free = concurrency - redis.call('ZCARD', KEYS[2])
local ahead = 0
local waiting = redis.call('ZCARD', KEYS[3])
if waiting > 0 then
  -- One that has not asked for a second has died, or does not want it any more.
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - 1000000)
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '(' .. string.format('%d', now), '+inf')
  for _, other in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    if other < id then ahead = ahead + 1 end
  end
end
if free <= ahead then
  redis.call('ZADD', KEYS[3], now, id)
  redis.call('PEXPIRE', KEYS[3], 2000)
  return {3, math.min(100000, 4000 * (1 + ahead - math.max(0, free))), id, ''}
end

local tat = tonumber(state[1] or 0) or 0
if tat > now + ARGV[6] + interval then tat = now end
tat = math.max(now - math.max(0, ARGV[8] - interval), tat)
local wait = math.max(0, tat - now)
if interval > 0 and wait > tonumber(ARGV[6]) then
  if waiting > 0 then redis.call('ZREM', KEYS[3], id) end
  return {2, wait - math.floor(ARGV[6] / 2), id, ''}
end
if interval > 0 then
  redis.call('HSET', KEYS[1], 'tat', string.format('%d', tat + interval))
  redis.call('PEXPIRE', KEYS[1], math.ceil((wait + interval) / 1000) + 60000)
else
  wait = 0
end
if waiting > 0 then redis.call('ZREM', KEYS[3], id) end
redis.call('ZADD', KEYS[2], now + ARGV[5], id)
redis.call('PEXPIRE', KEYS[2], math.ceil(ARGV[5] / 1000))
return {0, wait, id, ''}
