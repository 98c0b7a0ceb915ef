"""Subjects: what wants a look, who looks, and what becomes of it.

The inbox makes a subject due and leaves a job (`webhooks.inbox`). Here a worker claims it, and
settles it: done, later, or dead. All of a subject's state changes in one script each, so that a
crash falls between them and never inside.

Besides the inbox's keys: `tries` and `since` (hashes: how often, and from when on, a subject was
tried without success), `dead` (hash: subject -> why it failed for good) and `lock:{subject}`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from webhooks.events import Delivery
from webhooks.inbox import WAKE, job
from worker.leases import LEASE, Leases

BUSY_AGAIN: Final = 1000
"""Milliseconds after which a job looks again at a subject that another worker holds."""

OVERDUE: Final = 3000
"""Milliseconds past due after which the sweep asks whether a subject still has a job."""

SWEPT_AT_ONCE: Final = 500

_CLAIM: Final = f"""{WAKE}
local subject, token, now, lease, body = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local due = redis.call('ZSCORE', prefix .. 'due', subject)
if not due or tonumber(due) > tonumber(now) then return {{'nothing'}} end
local lock = prefix .. 'lock:' .. subject
local free = redis.call('SET', lock, token, 'NX', 'PX', lease)
if not free and redis.call('GET', lock) ~= token then
  redis.call('HDEL', prefix .. 'job', subject)
  wake(subject, now + {BUSY_AGAIN}, body)
  return {{'busy'}}
end
redis.call('HSETNX', prefix .. 'since', subject, now)
local records, ids = {{}}, redis.call('LRANGE', prefix .. 'pending:' .. subject, 0, -1)
for i, id in ipairs(ids) do records[i] = redis.call('GET', prefix .. 'delivery:' .. id) or '' end
return {{'yours', redis.call('HINCRBY', prefix .. 'tries', subject, 1),
  redis.call('HGET', prefix .. 'since', subject), ids, records}}
"""

_SETTLE: Final = f"""{WAKE}
local subject, token, outcome, now, at = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local body, record = ARGV[7], ARGV[8]
local pending, lock = prefix .. 'pending:' .. subject, prefix .. 'lock:' .. subject
if redis.call('GET', lock) == token then redis.call('DEL', lock) end
redis.call('HDEL', prefix .. 'job', subject)
redis.call('ZREM', prefix .. 'due', subject)
if outcome ~= 'later' then
  local left = redis.call('LLEN', pending) - (#ARGV - 8)
  if outcome == 'done' then
    for i = 9, #ARGV do redis.call('LREM', pending, 1, ARGV[i]) end
    left = redis.call('LLEN', pending)
  end
  redis.call('HDEL', prefix .. 'tries', subject)
  redis.call('HDEL', prefix .. 'since', subject)
  if left > 0 then at = now end
end
if outcome == 'done' then redis.call('HDEL', prefix .. 'dead', subject) end
if outcome == 'dead' then redis.call('HSET', prefix .. 'dead', subject, record) end
if at ~= '' then wake(subject, at, body) end
"""

_SWEEP: Final = f"""{WAKE}
local now, bodies = ARGV[2], 0
local late = redis.call('ZRANGEBYSCORE', prefix .. 'due', '-inf', now - {OVERDUE},
  'LIMIT', 0, {SWEPT_AT_ONCE})
local mended = {{}}
for _, subject in ipairs(late) do
  local job = redis.call('HGET', prefix .. 'job', subject)
  local waits = job and redis.call('EXISTS', 'arq:job:' .. job) == 1
    and redis.call('ZSCORE', queue_of(subject), job)
  if not waits then
    redis.call('HDEL', prefix .. 'job', subject)
    wake(subject, now, (string.gsub(ARGV[3], 'SUBJECT', function() return subject end)))
    mended[#mended + 1] = subject
  elseif redis.call('EXISTS', 'arq:in-progress:' .. job) == 1
    and redis.call('EXISTS', prefix .. 'lock:' .. subject) == 0 then
    redis.call('DEL', 'arq:in-progress:' .. job)
    mended[#mended + 1] = subject
  end
end
return mended
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A subject that this worker holds, with what waited for it.

    `taken` are the ids of `deliveries` and the other `reasons` as they stand in Redis. `tries`
    counts this one too.
    """

    subject: str
    token: str
    taken: tuple[str, ...]
    deliveries: tuple[Delivery, ...]
    tries: int
    first_try: datetime

    @property
    def reasons(self) -> frozenset[str]:
        """What made the subject due besides deliveries."""
        return frozenset(self.taken) - {delivery.id for delivery in self.deliveries}


class Death(msgspec.Struct, frozen=True):
    """Why a subject was given up, for the person who must act."""

    reason: str
    tries: int
    first_try: datetime
    at: datetime
    deliveries: tuple[str, ...]


def milliseconds(at: datetime) -> int:
    """Return an instant as milliseconds since the epoch, never earlier than it is."""
    return -((datetime(1970, 1, 1, tzinfo=UTC) - at) // timedelta(milliseconds=1))


class Subjects:
    """What is due, and the jobs for it."""

    def __init__(self, redis: Redis, prefix: str, leases: Leases) -> None:
        self._redis = redis
        self._prefix = prefix
        self._leases = leases
        self._claim = redis.register_script(_CLAIM)
        self._settle = redis.register_script(_SETTLE)
        self._sweep = redis.register_script(_SWEEP)

    async def claim(self, subject: str, now: datetime) -> Claim | None:
        """Take a subject; None where it is not due, or another worker has it and goes on."""
        token, at = self._leases.token(), milliseconds(now)
        arguments: list[Any] = [self._prefix, subject, token, at, LEASE, job(subject, at)]
        answer = await self._claim(args=arguments)
        if answer[0] != b"yours":
            return None
        self._leases.hold(subject, token)
        _, tries, since, ids, records = answer
        return Claim(
            subject=subject,
            token=token,
            taken=tuple(id_.decode() for id_ in ids),
            deliveries=tuple(msgspec.json.decode(r, type=Delivery) for r in records if r),
            tries=tries,
            first_try=datetime.fromtimestamp(int(since) / 1000, UTC),
        )

    async def done(self, claim: Claim, now: datetime, look_again: datetime | None) -> None:
        """Settle a claim that came to its end; what arrived meanwhile gets a job of its own."""
        await self._settled(claim, "done", now, look_again)

    async def later(self, claim: Claim, now: datetime, at: datetime) -> None:
        """Put a claim off to an instant, with all that waited for it."""
        await self._settled(claim, "later", now, at)

    async def dead(
        self, claim: Claim, now: datetime, reason: str, look_again: datetime | None = None
    ) -> None:
        """Give a claim up, and keep it with its reason until it succeeds or a person acts.

        What waited for it goes on waiting, and is there when it is tried again: by a person, or
        when it would have been looked at anyway.
        """
        death = Death(reason, claim.tries, claim.first_try, now, claim.taken)
        await self._settled(claim, "dead", now, look_again, msgspec.json.encode(death))

    async def _settled(
        self, claim: Claim, outcome: str, now: datetime, at: datetime | None, record: bytes = b""
    ) -> None:
        instant, next_ = milliseconds(now), milliseconds(at) if at else ""
        body = job(claim.subject, instant)
        head: list[Any] = [self._prefix, claim.subject, claim.token, outcome, instant, next_]
        await self._settle(args=[*head, body, record, *claim.taken])
        self._leases.forget(claim.subject)

    async def release(self, claim: Claim) -> None:
        """Give a claim back unsettled: its job was cut off and arq runs it again."""
        await self._leases.release(claim.subject)

    async def sweep(self, now: datetime) -> Sequence[str]:
        """Mend what is overdue: a lost job is made anew, a killed worker's job is set free.

        Returns the subjects that were mended.
        """
        at = milliseconds(now)
        mended = await self._sweep(args=[self._prefix, at, job("SUBJECT", at)])
        return [subject.decode() for subject in mended]

    async def due(self, subjects: Sequence[str]) -> dict[str, float]:
        """Return when some subjects are due (ms); those that never are, are left out."""
        if not subjects:
            return {}
        scores = await self._redis.zmscore(f"{self._prefix}due", list(subjects))
        return {s: at for s, at in zip(subjects, scores, strict=True) if at is not None}

    async def deaths(self) -> dict[str, Death]:
        """Return what was given up, by subject."""
        rows: dict[bytes, bytes] = await self._redis.hgetall(f"{self._prefix}dead")  # type: ignore[misc]  # redis-py types sync and async in one
        return {s.decode(): msgspec.json.decode(row, type=Death) for s, row in rows.items()}
