-- KEYS: record, lease. ARGV: owner, fence, intent, milliseconds.
if redis.call('GET', KEYS[2]) ~= ARGV[1] or redis.call('HGET', KEYS[1], 'f') ~= ARGV[2] then
  return 'lost'
end
redis.call('HSET', KEYS[1], 'i', ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 'held'
