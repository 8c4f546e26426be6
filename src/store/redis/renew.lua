-- KEYS: record, lease. ARGV: owner, fence, milliseconds, milliseconds that a fence is kept.
local owner = redis.call('GET', KEYS[2])
local fence, redeem, generation = unpack(redis.call('HMGET', KEYS[1], 'f', 'i', 'g'))
if owner == ARGV[1] then
  -- Never shorten it: an intent may have made it longer since this command was sent.
  if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[3]) then
    redis.call('PEXPIRE', KEYS[2], ARGV[3])
  end
elseif (not owner or owner == '') and fence == ARGV[2] then
  -- It has run out, and no other holder has had it since: the fence would be another.
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
  local open = redeem and string.match(redeem, '^(%d+ open) silent$')
  if open then
    -- A waiter had given up on the intent. It holds again.
    redis.call('HSET', KEYS[1], 'i', open)
  end
else
  return 'lost'
end
if not generation and redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return 'held'
