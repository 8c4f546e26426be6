-- KEYS: record. ARGV: milliseconds of a tombstone, channel, where generations begin.
local document, generation = unpack(redis.call('HMGET', KEYS[1], 'd', 'g'))
-- Begin with what takes no memory: a server without memory refuses a script whose first write
-- takes some. It deletes nothing yet: for want of a right nothing is half done.
redis.call('HDEL', KEYS[1], '')
if generation then
  redis.call('HINCRBY', KEYS[1], 'g', 1)
  generation = redis.call('HGET', KEYS[1], 'g')
else
  generation = ARGV[3]
  redis.call('HSET', KEYS[1], 'g', generation)
end
redis.call('HDEL', KEYS[1], 'd', 'i', 'u')
-- It is done, even if the user may do neither.
redis.pcall('PEXPIRE', KEYS[1], ARGV[1])
redis.pcall('PUBLISH', ARGV[2], generation)
return {generation, document}
