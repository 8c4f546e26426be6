-- KEYS: record, lease. ARGV: owner, fence, milliseconds.
local owner = redis.call('GET', KEYS[2])
if owner == ARGV[1] then
  -- Only ever longer: an intent may have come between.
  if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[3]) then
    redis.call('PEXPIRE', KEYS[2], ARGV[3])
  end
  return 'held'
end
if (not owner or owner == '') and redis.call('HGET', KEYS[1], 'f') == ARGV[2] then
  -- It has run out, and nobody came between.
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
  local left = redis.call('HGET', KEYS[1], 'i')
  local open = left and string.match(left, '^(%d+ open) silent$')
  if open then
    -- Somebody was about to: its intent had run out, and holds again.
    redis.call('HSET', KEYS[1], 'i', open)
  end
  return 'held'
end
return 'lost'
