-- KEYS: record, lease. ARGV: owner, fence, milliseconds.
local owner = redis.call('GET', KEYS[2])
if owner == ARGV[1] then
  -- Never shorten it: an intent may have made it longer since this command was sent.
  if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[3]) then
    redis.call('PEXPIRE', KEYS[2], ARGV[3])
  end
  return 'held'
end
if (not owner or owner == '') and redis.call('HGET', KEYS[1], 'f') == ARGV[2] then
  -- It has run out, and no other holder has had it since: the fence would be another.
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
  local redeem = redis.call('HGET', KEYS[1], 'i')
  local open = redeem and string.match(redeem, '^(%d+ open) silent$')
  if open then
    -- A waiter had given up on the intent. It holds again.
    redis.call('HSET', KEYS[1], 'i', open)
  end
  return 'held'
end
return 'lost'
