-- Checks an event of a subject, and takes its tokens if there are enough. KEYS: the bucket, and the set of the tenant's
-- subjects. ARGV: the microseconds in which a token is added, and in which an empty bucket is filled; the tokens to take;
-- 1 to take none; the maximum number of subjects of the tenant; the name of the subject in the set; the milliseconds
-- after which a set without events expires.
--
-- Returns 1 if the subject is new and there are too many, or else 0, and the microseconds until the bucket was full
-- before the event.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, window, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local after = full + interval * cost
if ARGV[4] ~= '1' and after - now <= window then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now))
  local is_new = not redis.call('ZSCORE', KEYS[2], ARGV[6])
  if is_new and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then
    return {1, 0}
  end
  local stored = string.format('%.0f', after)
  redis.call('SET', KEYS[1], stored, 'PX', math.ceil((after - now) / 1000))
  redis.call('ZADD', KEYS[2], stored, ARGV[6])
  redis.call('PEXPIRE', KEYS[2], ARGV[7])
end
return {0, full - now}
