-- KEYS: record, lease. ARGV: owner and fence (both empty for a sign-in), generation expected,
-- generation, document (empty: signed out), milliseconds of a record, of a lease, channel.
local generation, document, fence = unpack(redis.call('HMGET', KEYS[1], 'g', 'd', 'f'))
if ARGV[2] ~= '' and fence ~= ARGV[2] then
  return 'lost'
end
if (generation or '0') ~= ARGV[3] then
  -- No two documents are alike: this very command, sent again as its answer was lost.
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
  -- Nothing is spent any more that the longer time was for. If it had run out, nobody came
  -- between, or the fence would be another.
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[7])
end
-- Who may not publish has saved all the same.
redis.pcall('PUBLISH', ARGV[8], ARGV[4])
return 'saved'
