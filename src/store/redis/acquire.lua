-- KEYS: record, lease. ARGV: generation known, owner, milliseconds of a lease, milliseconds that
-- a fence is kept, where fences begin.
local generation, document, fence, redeem =
  unpack(redis.call('HMGET', KEYS[1], 'g', 'd', 'f', 'i'))
local known = ARGV[1]
-- Lua's numbers cannot hold every generation. As text, the longer one is the greater.
if generation and (#generation > #known or (#generation == #known and generation > known)) then
  return {'newer', generation, document}
end
local open = redeem and string.match(redeem, '^%d+ open$')
if open and not redis.call('GET', KEYS[2]) then
  -- The lease ran out while its holder was redeeming: the holder has stalled, or Redis was
  -- away and could not be told. A lease without an owner keeps waiters waiting for one lease
  -- time, in which the holder may renew its own.
  redis.call('HSET', KEYS[1], 'i', open .. ' silent')
  redis.call('SET', KEYS[2], '', 'PX', ARGV[3])
  return {'wait', tonumber(ARGV[3])}
end
if not redis.call('SET', KEYS[2], ARGV[2], 'NX', 'PX', ARGV[3]) then
  -- The client sends this command again when the answer was lost: it has the lease already.
  if redis.call('GET', KEYS[2]) == ARGV[2] then
    return {'held', fence, redeem}
  end
  return {'wait', redis.call('PTTL', KEYS[2])}
end
if not fence then
  -- Begin with the time, so that after a loss of all data no number is given a second time.
  redis.call('HSET', KEYS[1], 'f', ARGV[5])
end
redis.call('HINCRBY', KEYS[1], 'f', 1)
if not generation and redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then
  -- Nothing was written under this name yet: it may be made up.
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return {'held', redis.call('HGET', KEYS[1], 'f'), redeem}
