-- Takes one token from each bucket in KEYS, or none if one of them is empty. Each bucket has two arguments: the
-- microseconds in which a token is added, and those in which an empty bucket is filled. A bucket is stored as the time
-- at which it will be full, and expires then. The clock is that of this server, so all processes agree.
--
-- Returns the number of the empty bucket, or 0, and then for each bucket the microseconds until it is full. That of an
-- empty bucket includes the token that it lacks.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local times, result = {}, {0}
for i, key in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local full = math.max(tonumber(redis.call('GET', key) or now), now) + interval
  times[i] = full
  result[i + 1] = full - now
  if result[1] == 0 and full - now > burst then
    result[1] = i
  end
end
if result[1] == 0 then
  for i, key in ipairs(KEYS) do
    redis.call('SET', key, string.format('%.0f', times[i]), 'PX', math.ceil(result[i + 1] / 1000))
  end
end
return result
