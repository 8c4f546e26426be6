-- KEYS: record, lease. ARGV: generation seen, owner, milliseconds of a lease, of a record.
local generation, document, fence, left =
  unpack(redis.call('HMGET', KEYS[1], 'g', 'd', 'f', 'i'))
local seen = ARGV[1]
-- Lua's numbers are too short for a generation: the longer is the greater.
if generation and (#generation > #seen or (#generation == #seen and generation > seen)) then
  return {'newer', generation, document}
end
local open = left and string.match(left, '^%d+ open$')
if open and redis.call('EXISTS', KEYS[2]) == 0 then
  -- Its holder was silent, or the server was away and nobody could be heard: a lease that is
  -- nobody's gives it time to show itself.
  redis.call('HSET', KEYS[1], 'i', open .. ' silent')
  redis.call('SET', KEYS[2], '', 'PX', ARGV[3])
  return {'wait', tonumber(ARGV[3])}
end
if not redis.call('SET', KEYS[2], ARGV[2], 'NX', 'PX', ARGV[3]) then
  -- This very command, sent again because its answer was lost.
  if redis.call('GET', KEYS[2]) == ARGV[2] then
    return {'held', fence, left}
  end
  return {'wait', redis.call('PTTL', KEYS[2])}
end
if not fence then
  -- Never a number that was given before, were all data lost meanwhile.
  local now = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'f', string.format('%s%06d', now[1], now[2]))
end
redis.call('HINCRBY', KEYS[1], 'f', 1)
if redis.call('PTTL', KEYS[1]) < 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return {'held', redis.call('HGET', KEYS[1], 'f'), left}
