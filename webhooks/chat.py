"""What is counted of a chat, and the alarm that wakes a worker when it is busy.

A message leaves numbers here and nothing else: no record of it, no text, no job. How busy a chat
is is said in voices: a member who writes, counted once in ten seconds, however often they write.
The keys, all under `usher:{account}:`; a bucket is ten seconds, numbered from the epoch:

    heard:{id}                   a delivery that was counted, for as long as a copy could count
    chat:{channel}:{hour}        hash, for 15 days: bucket of the hour (0-359) -> voices,
                                 m{minute} -> messages, s{minute} -> senders
    senders:{channel}:{bucket}   HyperLogLog: who wrote, to be counted and not to be named
    senders:{channel}:{minute}m  the same for a minute of the clock
    alarm:{channel}              hash, written by the worker: the `subject` to wake, from how many
                                 `voices` a minute on, how many of them are one sender's `share`
                                 at the most, and `since` when (ms)

A HyperLogLog says whether it has met somebody before. Of thousands in ten seconds it takes some
for others, so that very many are counted as fewer: never one as two.
"""

from typing import Final

from webhooks.events import BUCKET, LATE

HEARD: Final = LATE // 1000 + 60
"""Seconds for which a counted delivery is known: a copy that comes later is late, and not counted.
The minute is for a sender's clock that is ahead of ours."""

RECORDED: Final = 15 * 24 * 3600
"""Seconds for which the counts are kept: two weeks for `usher survey`, and the day it is asked."""

REMEMBERED_SENDERS: Final = 15 * 60
"""Seconds for which senders can be counted: the controller looks ten minutes back."""

WAKES_APART: Final = 60_000
"""Milliseconds between two wakes by an alarm that no worker has set anew in the meantime."""

ASKS_APART: Final = 1000
"""Milliseconds until senders are counted again where they were too few for so many voices."""

HEAR: Final = f"""
local id, channel, sender = ARGV[2], ARGV[3], ARGV[4]
local bucket, now, body = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
if not redis.call('SET', prefix .. 'heard:' .. id, '', 'NX', 'EX', {HEARD}) then return 0 end
local hour, minute = {3600 // BUCKET}, {60 // BUCKET}
local function counts(at) return prefix .. 'chat:' .. channel .. ':' .. math.floor(at / hour) end
local here, clock = counts(bucket), math.floor(bucket % hour / minute)
local senders = prefix .. 'senders:' .. channel .. ':'
local function is_new(key)
  if redis.call('PFADD', key, sender) == 0 then return false end
  redis.call('EXPIRE', key, {REMEMBERED_SENDERS})
  return true
end
if redis.call('HINCRBY', here, 'm' .. clock, 1) == 1 then
  redis.call('EXPIRE', here, {RECORDED})
end
if is_new(senders .. bucket) then
  redis.call('HINCRBY', here, bucket % hour, 1)
  if is_new(senders .. math.floor(bucket / minute) .. 'm') then
    redis.call('HINCRBY', here, 's' .. clock, 1)
  end
end
local alarm = prefix .. 'alarm:' .. channel
local said = redis.call('HMGET', alarm, 'subject', 'voices', 'share', 'since')
local subject, least, share = said[1], tonumber(said[2]), tonumber(said[3])
if not subject or now < tonumber(said[4]) then return 1 end
local last, voices, sets = math.floor(now / {BUCKET * 1000}), 0, {{}}
for at = last - minute + 1, last do
  voices = voices + (redis.call('HGET', counts(at), at % hour) or 0)
  sets[#sets + 1] = senders .. at
end
if voices < least then return 1 end
if redis.call('PFCOUNT', unpack(sets)) * share < least then
  redis.call('HSET', alarm, 'since', string.format('%.0f', now + {ASKS_APART}))
  return 1
end
redis.call('HSET', alarm, 'since', string.format('%.0f', now + {WAKES_APART}))
ask(subject, 'busy')
wake(subject, now, (string.gsub(body, 'SUBJECT', function() return subject end)))
return 1
"""
"""Lua, to go after the inbox's `WAKE`: count a message once, and see whether the alarm goes off.

The minute that it looks at are the last six buckets, just as the worker does.
"""
