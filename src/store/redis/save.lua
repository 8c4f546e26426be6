-- KEYS: record, lease. ARGV: fence (empty for a sign-in), generation expected, generation,
-- document (empty: signed out), milliseconds of a record, channel.
local generation, document, fence = unpack(redis.call('HMGET', KEYS[1], 'g', 'd', 'f'))
if ARGV[4] ~= '' and document == ARGV[4] then
  -- The client sends this command again when the answer was lost. Each document is sealed
  -- with a nonce of its own, so an equal one is this one.
  return 'saved'
end
if ARGV[1] ~= '' and fence ~= ARGV[1] then
  return 'lost'
end
if (generation or '0') ~= ARGV[2] then
  return 'conflict'
end
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 'g', ARGV[3], 'd', ARGV[4])
else
  redis.call('HSET', KEYS[1], 'g', ARGV[3])
  redis.call('HDEL', KEYS[1], 'd')
end
redis.call('HDEL', KEYS[1], 'i')
-- A holder's save keeps the record's own end, a sign-in begins without.
if ARGV[1] == '' or ARGV[4] == '' then
  redis.call('HDEL', KEYS[1], 'u')
end
if not redis.call('HGET', KEYS[1], 'u') then
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
if ARGV[1] ~= '' then
  -- The lease ends here: its holder may exit without another word. As the fence is still this
  -- one, no other holder has had it. The new fence keeps a renewal that is still on its way
  -- from taking it back. A time of zero deletes, without the right to `DEL`.
  redis.call('PEXPIRE', KEYS[2], 0)
  redis.call('HINCRBY', KEYS[1], 'f', 1)
end
-- It is saved, even if the user may not publish.
redis.pcall('PUBLISH', ARGV[6], ARGV[3])
return 'saved'
