//! What Redis does in one step. Three keys, under one hash tag, so that they lie in one place:
//!
//! - `{prefix}:state`, a hash: `@epoch`, `@n` the number of the last entry, and `:ROOM` how far each room with a history has counted. One
//!   key, so that a Redis that throws keys away for lack of memory throws away all of it or nothing.
//! - `{prefix}:log`, a stream: an entry's id is `epoch-number`; fields `e` the envelope, `t` the time in milliseconds, `o` the room's count.
//! - `{prefix}:node:NODE`, for each run of a node: number of the last post of it that was taken. It expires a day after its last.

/// `KEYS` state, log; `ARGV[1]` an epoch that is to be replaced, or nothing. Returns the epoch and the number of its last entry. A log that is
/// not there, or is replaced, begins with an entry of number 0 that says nothing: whoever reads a former epoch sees it.
pub(crate) const BEGIN: &str = r"
local epoch = redis.call('HGET', KEYS[1], '@epoch')
if not epoch or epoch == ARGV[1] then
  local time = redis.call('TIME')
  local new = tonumber(time[1]) * 1000000 + tonumber(time[2])
  if ARGV[1] ~= '' and new <= tonumber(ARGV[1]) then new = tonumber(ARGV[1]) + 1 end
  epoch = string.format('%.0f', new)
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], '@epoch', epoch, '@n', '0')
  redis.call('XADD', KEYS[2], epoch .. '-0', 'epoch', epoch)
end
return { epoch, redis.call('HGET', KEYS[1], '@n') }
";

/// `KEYS` state, log, node; `ARGV` the epoch, entries to keep, and for each post its number, its room where that counts, its envelope. Posts that
/// were taken before are left out. Returns the number of the last entry, and how many posts were taken.
pub(crate) const APPEND: &str = r"
local epoch = redis.call('HGET', KEYS[1], '@epoch')
if epoch ~= ARGV[1] then return redis.error_reply('EPOCH another epoch has begun') end
local last = tonumber(redis.call('GET', KEYS[3]) or '0')
local time = redis.call('TIME')
local ms = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local taken = 0
for i = 3, #ARGV, 3 do
  local number = tonumber(ARGV[i])
  if number > last then
    local id = epoch .. '-' .. string.format('%.0f', redis.call('HINCRBY', KEYS[1], '@n', 1))
    if ARGV[i + 1] == '' then
      redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], id, 'e', ARGV[i + 2], 't', ms)
    else
      local count = string.format('%.0f', redis.call('HINCRBY', KEYS[1], ':' .. ARGV[i + 1], 1))
      redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], id, 'e', ARGV[i + 2], 't', ms, 'o', count)
    end
    last = number
    taken = taken + 1
  end
end
if taken > 0 then redis.call('SET', KEYS[3], string.format('%.0f', last), 'EX', 86400) end
return { redis.call('HGET', KEYS[1], '@n'), taken }
";
