-- KEYS: record, lease. ARGV: owner, fence, intent, milliseconds of an intent, of a record.
local fence, generation = unpack(redis.call('HMGET', KEYS[1], 'f', 'g'))
if redis.call('GET', KEYS[2]) ~= ARGV[1] or fence ~= ARGV[2] then
  return 'lost'
end
-- Begin with what takes memory, and changes nothing: a server without memory refuses it, as it
-- would refuse the save; after any other write it refuses no more in this script.
redis.call('HSET', KEYS[1], 'f', fence)
-- A save deletes it: a user who may not is told now, before the refresh token is spent.
redis.call('HDEL', KEYS[1], 'i')
redis.call('HSET', KEYS[1], 'i', ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
if not generation then
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
return 'held'
