-- KEYS: record. ARGV: the end, in milliseconds since the epoch.
local document, known = unpack(redis.call('HMGET', KEYS[1], 'd', 'u'))
if not document then
  return 'none'
end
local ends = ARGV[1]
-- Lua's numbers would do, but as text there is no doubt: the longer one is the later.
if known and (#known > #ends or (#known == #ends and known >= ends)) then
  return 'kept'
end
-- First, so that nothing is half done for want of the right. What has ended already is gone then.
redis.call('PEXPIREAT', KEYS[1], ends)
if redis.call('HGET', KEYS[1], 'g') then
  redis.call('HSET', KEYS[1], 'u', ends)
end
return 'kept'
