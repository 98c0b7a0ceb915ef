"""Subjects: what wants a look, who looks, and what becomes of it.

The inbox makes a subject due and leaves a job (`webhooks.inbox`). Here a worker claims it, and
settles it: done, later, or dead. All of a subject's state changes in one script each, so that a
crash falls between them and never inside.

Besides the inbox's keys: `tries` and `since` (hashes: how often, and from when on, a subject was
tried without success), `dead` (hash: subject -> why it failed for good), `lock:{subject}`, and
`looks:{subject}` (list of Look: how each job for it ended, the newest last; the last 30, gone
35 days after the last).
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import msgspec
from redis.asyncio import Redis

from webhooks.events import Delivery
from webhooks.inbox import REMEMBERED, WAKE, job
from worker.fence import Lost
from worker.leases import LEASE, Leases
from worker.roster import CURRENT

BUSY_AGAIN: Final = 1000
"""Milliseconds after which a job looks again at a subject that another worker holds."""

OVERDUE: Final = 3000
"""Milliseconds past due after which the sweep asks whether a subject still has a job."""

JOB_LIMIT: Final = timedelta(hours=1)
"""How long a job may run before arq cuts it off."""

IN_PROGRESS: Final = (JOB_LIMIT + timedelta(seconds=10)) // timedelta(milliseconds=1)
"""Milliseconds for which arq takes a job for running once it was picked."""

LATELY: Final = timedelta(minutes=15)
"""For so long what is due, or fails and is tried again, counts as being worked on."""

SOON: Final = timedelta(seconds=2)
"""What is due so soon is being worked on, too: a lock is due a little after its instant."""

SWEPT_AT_ONCE: Final = 500
SWEPT_AT_MOST: Final = 20_000
"""Overdue subjects that one sweep looks at, the oldest first."""

LOOKS: Final = 30
"""Looks that are kept of a subject."""

TOOK: Final = 20
"""Ids that are kept of what one look took: enough to follow a purchase."""

_CLAIM: Final = f"""{WAKE}{CURRENT}
local subject, token, now, lease, body = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local mark = ARGV[7]
local newest = mark ~= '' and current(prefix) or mark  -- or nobody is enrolled
local due = redis.call('ZSCORE', prefix .. 'due', subject)
if not due or tonumber(due) > tonumber(now) then return {{'nothing'}} end
local lock = prefix .. 'lock:' .. subject
local free = redis.call('SET', lock, token, 'NX', 'PX', lease)
if free and newest ~= mark then
  redis.call('DEL', lock)
  free = false
end
if not free and redis.call('GET', lock) ~= token then
  local job = redis.call('HGET', prefix .. 'job', subject)
  local at = job and redis.call('ZSCORE', queue_of(subject), job)
  if not at or tonumber(at) <= tonumber(now) or redis.call('EXISTS', 'arq:job:' .. job) == 0 then
    redis.call('HDEL', prefix .. 'job', subject)
    wake(subject, now + {BUSY_AGAIN}, body)
  end
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
local body, record, look = ARGV[7], ARGV[8], ARGV[9]
local pending, lock = prefix .. 'pending:' .. subject, prefix .. 'lock:' .. subject
if redis.call('GET', lock) ~= token then return 0 end
redis.call('DEL', lock)
redis.call('HDEL', prefix .. 'job', subject)
redis.call('ZREM', prefix .. 'due', subject)
redis.call('RPUSH', prefix .. 'looks:' .. subject, look)
redis.call('LTRIM', prefix .. 'looks:' .. subject, -{LOOKS}, -1)
redis.call('EXPIRE', prefix .. 'looks:' .. subject, {REMEMBERED})
if outcome == 'held' then
  if redis.call('HINCRBY', prefix .. 'tries', subject, -1) < 1 then
    redis.call('HDEL', prefix .. 'tries', subject)
    redis.call('HDEL', prefix .. 'since', subject)
  end
elseif outcome ~= 'later' then
  local left = redis.call('LLEN', pending) - (#ARGV - 9)
  if outcome == 'done' then
    for i = 10, #ARGV do redis.call('LREM', pending, 1, ARGV[i]) end
    left = redis.call('LLEN', pending)
  end
  redis.call('HDEL', prefix .. 'tries', subject)
  redis.call('HDEL', prefix .. 'since', subject)
  if left > 0 then at = now end
end
if outcome == 'done' then redis.call('HDEL', prefix .. 'dead', subject) end
if outcome == 'dead' then redis.call('HSET', prefix .. 'dead', subject, record) end
if at ~= '' then wake(subject, at, body) end
return 1
"""

_SWEEP: Final = f"""{WAKE}
local now = ARGV[2]
local late = redis.call('ZRANGEBYSCORE', prefix .. 'due', '-inf', now - {OVERDUE},
  'LIMIT', ARGV[4], {SWEPT_AT_ONCE})
local mended = {{}}
for _, subject in ipairs(late) do
  local job = redis.call('HGET', prefix .. 'job', subject)
  local waits = job and redis.call('EXISTS', 'arq:job:' .. job) == 1
    and redis.call('ZSCORE', queue_of(subject), job)
  if not waits then
    redis.call('HDEL', prefix .. 'job', subject)
    wake(subject, now, (string.gsub(ARGV[3], 'SUBJECT', function() return subject end)))
    mended[#mended + 1] = subject
  elseif redis.call('EXISTS', prefix .. 'lock:' .. subject) == 0 then
    local left = redis.call('PTTL', 'arq:in-progress:' .. job)
    if left ~= -2 and left < {IN_PROGRESS - OVERDUE} then
      redis.call('DEL', 'arq:in-progress:' .. job)
      mended[#mended + 1] = subject
    end
  end
end
local received = prefix .. 'received'
for _, id in ipairs(redis.call('ZRANGE', received, 0, {SWEPT_AT_ONCE} - 1)) do
  if redis.call('EXISTS', prefix .. 'delivery:' .. id) == 1 then break end
  redis.call('ZREM', received, id)
end
return {{#late, mended}}
"""

_DISCARD: Final = """
local prefix, subject = ARGV[1], ARGV[2]
if redis.call('EXISTS', prefix .. 'lock:' .. subject) == 1 then return 0 end
if redis.call('HDEL', prefix .. 'dead', subject) == 0 then return 0 end
for i = 3, #ARGV do redis.call('LREM', prefix .. 'pending:' .. subject, 1, ARGV[i]) end
return 1
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


class Look(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one job for a subject ended: `done`, `later`, `held` or `dead`, and the error if any.

    `took` are the deliveries and reasons that it was for, or the first of very many; `tries` counts
    it too.
    """

    at: datetime
    outcome: str
    tries: int
    took: tuple[str, ...] = ()
    why: str | None = None


def milliseconds(at: datetime) -> int:
    """Return an instant as milliseconds since the epoch, never earlier than it is."""
    return -((datetime(1970, 1, 1, tzinfo=UTC) - at) // timedelta(milliseconds=1))


class Subjects:
    """What is due, and the jobs for it."""

    def __init__(self, redis: Redis, prefix: str, leases: Leases, mark: str = "") -> None:
        """Claim as a worker by rules of a mark, or as somebody to whom a person said it."""
        self._mark = mark
        self._redis = redis
        self._prefix = prefix
        self._leases = leases
        self._claim = redis.register_script(_CLAIM)
        self._settle = redis.register_script(_SETTLE)
        self._sweep = redis.register_script(_SWEEP)
        self._discard = redis.register_script(_DISCARD)

    async def claim(self, subject: str, now: datetime) -> Claim | None:
        """Take a subject; None where it is not due, or is another worker's to do.

        That is one who has it and goes on, or one with newer rules than ours.
        """
        token, at = self._leases.token(), milliseconds(now)
        arguments: list[Any] = [
            self._prefix,
            subject,
            token,
            at,
            LEASE,
            job(subject, at),
            self._mark,
        ]
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
        """Settle a claim that came to its end; what arrived meanwhile gets a job of its own.

        Raises, as all that settle do:
            Lost: another worker has, or had, the claim: it is theirs to settle.
        """
        await self._settled(claim, "done", now, look_again)

    async def later(
        self, claim: Claim, now: datetime, at: datetime, why: str | None = None
    ) -> None:
        """Put a claim off to an instant, with all that waited for it."""
        await self._settled(claim, "later", now, at, why=why)

    async def held(self, claim: Claim, now: datetime, at: datetime, why: str) -> None:
        """Put a claim off as if it had not been tried: it is not to blame."""
        await self._settled(claim, "held", now, at, why=why)

    async def dead(
        self, claim: Claim, now: datetime, reason: str, look_again: datetime | None = None
    ) -> None:
        """Give a claim up, and keep it with its reason until it succeeds or a person acts.

        What waited for it goes on waiting, and is there when it is tried again: by a person, or
        when it would have been looked at anyway.
        """
        death = Death(reason, claim.tries, claim.first_try, now, claim.taken)
        record = msgspec.json.encode(death)
        await self._settled(claim, "dead", now, look_again, record=record, why=reason)

    async def _settled(
        self,
        claim: Claim,
        outcome: str,
        now: datetime,
        at: datetime | None,
        *,
        record: bytes = b"",
        why: str | None = None,
    ) -> None:
        instant, next_ = milliseconds(now), milliseconds(at) if at else ""
        body = job(claim.subject, instant)
        head: list[Any] = [self._prefix, claim.subject, claim.token, outcome, instant, next_]
        look = msgspec.json.encode(Look(now, outcome, claim.tries, claim.taken[:TOOK], why))
        settled = await self._settle(args=[*head, body, record, look, *claim.taken])
        self._leases.forget(claim.subject)
        if not settled:
            raise Lost(claim.subject)

    async def release(self, claim: Claim) -> None:
        """Give a claim back unsettled: its job was cut off and arq runs it again."""
        await self._leases.release(claim.subject)

    async def sweep(self, now: datetime) -> Sequence[str]:
        """Mend what is overdue: a lost job is made anew, a killed worker's job is set free.

        Returns the subjects that were mended.
        """
        at, mended, found = milliseconds(now), list[bytes](), SWEPT_AT_ONCE
        for offset in range(0, SWEPT_AT_MOST, SWEPT_AT_ONCE):
            if found < SWEPT_AT_ONCE:
                break
            found, more = await self._sweep(args=[self._prefix, at, job("SUBJECT", at), offset])
            mended += more
        return [subject.decode() for subject in mended]

    async def due(self, subjects: Sequence[str]) -> dict[str, float]:
        """Return when some subjects are due (ms); those that never are, are left out."""
        if not subjects:
            return {}
        scores = await self._redis.zmscore(f"{self._prefix}due", list(subjects))
        return {s: at for s, at in zip(subjects, scores, strict=True) if at is not None}

    async def in_work(self, subjects: Sequence[str], now: datetime) -> set[str]:
        """Return which of these subjects are due, or are tried again, since a short while."""
        if not subjects:
            return set()
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.zmscore(f"{self._prefix}due", list(subjects))
            pipe.hmget(f"{self._prefix}since", list(subjects))
            scores, since = await pipe.execute()
        at, lately = milliseconds(now + SOON), milliseconds(now - LATELY)
        rows = zip(subjects, scores, since, strict=True)
        return {
            subject
            for subject, due, first in rows
            if due is not None and due > lately and (due <= at or (first and int(first) > lately))
        }

    async def due_by(self, now: datetime) -> list[str]:
        """Return the subjects that are due by now."""
        name = f"{self._prefix}due"
        rows: list[bytes] = await self._redis.zrangebyscore(name, "-inf", milliseconds(now))
        return [row.decode() for row in rows]

    async def failing(self, subjects: Sequence[str]) -> list[str]:
        """Return those of some subjects whose last try failed, for good or not."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hmget(f"{self._prefix}tries", list(subjects))
            pipe.hmget(f"{self._prefix}dead", list(subjects))
            tries, dead = await pipe.execute()
        return [s for s, t, d in zip(subjects, tries, dead, strict=True) if t or d]

    async def deaths(self) -> dict[str, Death]:
        """Return what was given up, by subject."""
        rows: dict[bytes, bytes] = await self._redis.hgetall(f"{self._prefix}dead")  # type: ignore[misc]  # redis-py types sync and async in one
        return {s.decode(): msgspec.json.decode(row, type=Death) for s, row in rows.items()}

    async def backlog(self, now: datetime) -> tuple[int, datetime | None]:
        """Return how many subjects are due, and since when the first of them is."""
        due, at = f"{self._prefix}due", milliseconds(now)
        count: int = await self._redis.zcount(due, "-inf", at)
        first = await self._redis.zrangebyscore(due, "-inf", at, 0, 1, withscores=True)
        return count, datetime.fromtimestamp(first[0][1] / 1000, UTC) if first else None

    async def count_dead(self) -> int:
        """Return how many subjects were given up."""
        return await cast("Awaitable[int]", self._redis.hlen(f"{self._prefix}dead"))

    async def discard(self, subject: str, death: Death) -> bool:
        """Drop what was given up, with what it was for; False where it is being tried again."""
        arguments = [self._prefix, subject, *death.deliveries]
        return bool(await self._discard(args=arguments))

    async def looks(self, subject: str) -> list[Look]:
        """Return how the last jobs for a subject ended, the newest last."""
        rows = await cast(
            "Awaitable[list[bytes]]", self._redis.lrange(f"{self._prefix}looks:{subject}", 0, -1)
        )
        return [msgspec.json.decode(row, type=Look) for row in rows]

    async def pending(self, subject: str) -> list[str]:
        """Return the ids of deliveries, and the reasons, that wait for a subject."""
        rows = await cast(
            "Awaitable[list[bytes]]", self._redis.lrange(f"{self._prefix}pending:{subject}", 0, -1)
        )
        return [row.decode() for row in rows]
