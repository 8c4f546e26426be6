-- KEYS: record. ARGV: milliseconds of a tombstone, channel.
local document = redis.call('HGET', KEYS[1], 'd')
-- Begin with what frees memory: a server without memory refuses a script whose first write
-- takes some.
redis.call('HDEL', KEYS[1], 'd', 'i')
redis.call('HINCRBY', KEYS[1], 'g', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
local generation = redis.call('HGET', KEYS[1], 'g')
redis.pcall('PUBLISH', ARGV[2], generation)
return {generation, document}
