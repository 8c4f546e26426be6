-- KEYS: record, lease. ARGV: owner and fence (both empty for a sign-in), generation expected,
-- generation, document (empty: signed out), milliseconds of a record, of a lease, channel.
local generation, document, fence = unpack(redis.call('HMGET', KEYS[1], 'g', 'd', 'f'))
if ARGV[2] ~= '' and fence ~= ARGV[2] then
  return 'lost'
end
if (generation or '0') ~= ARGV[3] then
  -- The client sends this command again when the answer was lost. Each document is sealed
  -- with a nonce of its own, so an equal one is this one.
  if ARGV[5] ~= '' and document == ARGV[5] then
    return 'saved'
  end
  return 'conflict'
end
redis.call('HSET', KEYS[1], 'g', ARGV[4])
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[1], 'd', ARGV[5])
else
  redis.call('HDEL', KEYS[1], 'd')
end
redis.call('HDEL', KEYS[1], 'i')
redis.call('PEXPIRE', KEYS[1], ARGV[6])
if ARGV[1] ~= '' then
  -- The redeem is over, and with it the longer time of the intent. Where the lease had run
  -- out it is taken back: as the fence is still this one, no other holder has had it.
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[7])
end
-- It is saved, even if the user may not publish.
redis.pcall('PUBLISH', ARGV[8], ARGV[4])
return 'saved'
