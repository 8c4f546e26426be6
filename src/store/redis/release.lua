-- KEYS: record, lease. ARGV: owner, fence, open redeem (empty: none), channel.
local owner = redis.call('GET', KEYS[2])
local fence, generation = unpack(redis.call('HMGET', KEYS[1], 'f', 'g'))
local is_latest = fence == ARGV[2]
if owner and owner ~= ARGV[1] and not (owner == '' and is_latest) then
  return 'lost'
end
-- It comes first, also because it takes no memory: a server without memory refuses none of what
-- follows, and a lease is given back there, too.
redis.call('PEXPIRE', KEYS[2], 0)
if is_latest then
  if generation or ARGV[3] ~= '' then
    -- A new fence, so that a renewal still on its way does not take the lease back.
    redis.call('HINCRBY', KEYS[1], 'f', 1)
  else
    -- Nothing was ever written under this name, and nothing is left of it.
    redis.call('HDEL', KEYS[1], 'f')
  end
  if ARGV[3] ~= '' then
    redis.call('HSET', KEYS[1], 'i', ARGV[3])
  else
    redis.call('HDEL', KEYS[1], 'i')
  end
end
redis.pcall('PUBLISH', ARGV[4], '')
return 'released'
