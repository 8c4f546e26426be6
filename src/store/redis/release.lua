-- KEYS: record, lease. ARGV: owner, fence, what is left open (empty: nothing), channel.
local owner = redis.call('GET', KEYS[2])
local ours = redis.call('HGET', KEYS[1], 'f') == ARGV[2]
if owner and owner ~= ARGV[1] and not (owner == '' and ours) then
  return 'lost'
end
redis.call('DEL', KEYS[2])
if ours then
  -- A renewal that is still on its way does not bring it back.
  redis.call('HINCRBY', KEYS[1], 'f', 1)
  if ARGV[3] ~= '' then
    redis.call('HSET', KEYS[1], 'i', ARGV[3])
  else
    redis.call('HDEL', KEYS[1], 'i')
  end
end
redis.pcall('PUBLISH', ARGV[4], '')
return 'released'
