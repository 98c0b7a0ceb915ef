"""The inbox: a delivery, its subject's mark and its subject's job go into Redis together.

The stored delivery is the truth and arq's job only a wake-up. A subject has at most one instant at
which it is due, and one job for it; `wake` in the scripts below is the one place that leaves jobs.
The keys, all under `usher:{account}:`:

    delivery:{id}       the delivery as JSON, for 35 days (Whop replays up to 30 days back) or for
                        longer, if the seller says so; empty once its person is forgotten
    received            sorted set: id of a delivery -> when it was received (ms); the sweep takes
                        out those that are gone
    pending:{subject}   list: ids of deliveries, and reasons of marks, that wait for the subject
    due                 sorted set: subject -> instant (ms) at which it wants a look
    job                 hash: subject -> id of the arq job that will give it
    jobs                a number for each job that no delivery gives its name
    queue, queue:rooms  arq's own sorted sets of job ids: rooms and channels have theirs, so that no
                        crowd of buyers keeps a room from closing

What is counted of a chat has keys of its own (`webhooks.chat`).

A job id is used once, so it carries a delivery's id or a number: arq refuses an id that is queued,
running or kept, and the subject's name alone would lose what arrives while its job ends. It begins
with the prefix: arq's own keys (`arq:job:{id}`) are named by the id alone, and two accounts on one
database must not meet there. An id of an older version has none; it is a job like any other.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from webhooks.chat import HEAR
from webhooks.events import Delivery, Message
from webhooks.pipelines import InboxUnavailable, Pipelines
from webhooks.redis_client import connect

__all__ = [
    "JOB_LIFE",
    "LONGEST_DAYS",
    "REMEMBERED",
    "WAKE",
    "Inbox",
    "InboxUnavailable",
    "connect",
    "job",
    "retention",
]

REMEMBERED: Final = 35 * 24 * 3600
"""Seconds for which a delivery is kept, and its id known, at the least: longer than Whop's replays
reach."""

LONGEST_DAYS: Final = 400
"""Days for which deliveries may be kept: as long as the trail of what came of them."""

JOB_LIFE: Final = REMEMBERED * 1000
"""Milliseconds for which arq keeps a job that is due; the sweep makes new ones anyway."""

WAKE: Final = f"""
local prefix = ARGV[1]
local function queue_of(subject)
  local rooms = string.find(subject, '^room:') or string.find(subject, '^channel:')
  return prefix .. (rooms and 'queue:rooms' or 'queue')
end
local function start(subject, at, body, tag)
  local job = prefix .. subject .. '@' .. (tag or redis.call('INCR', prefix .. 'jobs'))
  redis.call('HSET', prefix .. 'job', subject, job)
  local life = {JOB_LIFE}
  if not tag then life = life + math.max(0, at - redis.call('TIME')[1] * 1000) end
  redis.call('SET', 'arq:job:' .. job, body, 'PX', string.format('%.0f', life))
  redis.call('ZADD', queue_of(subject), at, job)
end
local function wake(subject, at, body, tag)
  if redis.call('ZADD', prefix .. 'due', 'LT', at, subject) == 0 then
    local job = redis.call('HGET', prefix .. 'job', subject)
    if job and redis.call('EXISTS', 'arq:job:' .. job) == 1 then
      redis.call('ZADD', queue_of(subject), 'XX', 'LT', at, job)
      return
    end
  end
  start(subject, at, body, tag)
end
local function ask(subject, reason)
  local pending = prefix .. 'pending:' .. subject
  if redis.call('EXISTS', prefix .. 'lock:' .. subject) == 0
    and redis.call('LPOS', pending, reason) then return end
  redis.call('RPUSH', pending, reason)
end
"""
"""Lua: make a subject due at an instant and see to it that it has a job, or bring its job forward.

`ask` leaves a reason once, however often it is given, so that what nobody can mend does not grow.
But while a worker has the subject, it may have taken the same reason already: then it is one more.
A script that starts with it takes the key prefix as its first argument.
"""

_PUT: Final = f"""{WAKE}
local id, subject, record, now, body = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local at = ARGV[8]
local new = redis.call('SET', prefix .. 'delivery:' .. id, record, 'NX', 'EX', ARGV[7])
if not new then
  redis.call('EXPIRE', prefix .. 'delivery:' .. id, ARGV[7])
  return 0
end
redis.call('ZADD', prefix .. 'received', now, id)
redis.call('RPUSH', prefix .. 'pending:' .. subject, id)
wake(subject, at, body, id)
return 1
"""

_MARK: Final = f"""{WAKE}
local subject, reason, at, body = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
ask(subject, reason)
wake(subject, at, body)
return 1
"""

_HEAR: Final = f"{WAKE}{HEAR}"

_PROBE: Final = """
redis.call('SETRANGE', ARGV[1] .. 'ready', 0, '')
return 1
"""
"""Writes nothing: no key comes of it, and nothing goes to the disk. But it is a command that writes
and may need memory, so Redis refuses it whenever it would refuse a delivery."""


def retention(environ: Mapping[str, str]) -> int:
    """Return for how many seconds deliveries are kept, as USHER_RETENTION_DAYS says.

    Raises:
        ValueError: it is no number of days, or fewer than Whop's replays reach back.
    """
    text, least = environ.get("USHER_RETENTION_DAYS") or "35", REMEMBERED // 86400
    if not (text.isascii() and text.isdigit()) or not least <= int(text) <= LONGEST_DAYS:
        raise ValueError(
            f"USHER_RETENTION_DAYS must be a number of days from {least} (Whop replays up to 30 "
            f"days back) to {LONGEST_DAYS}, not {text[:20]!r}"
        )
    return int(text) * 86400


def job(subject: str, now: int) -> bytes:
    """Return the JSON of an arq job that converges a subject (arq's own field names)."""
    fields: dict[str, Any] = {"t": None, "f": "converge", "a": [subject], "k": {}, "et": now}
    return msgspec.json.encode(fields)


class Inbox:
    """Where deliveries go in. Calls that wait at the same time share one pipeline.

    It bounds each call itself, so its client may do without a timeout for each answer.
    """

    def __init__(
        self, redis: Redis, account: str, *, kept: int = REMEMBERED, replicas: int = 0
    ) -> None:
        """Use a client for an account's inbox; deliveries are `kept` for so many seconds.

        Less than `REMEMBERED` is taken for it: an id forgotten too early would be new again. With
        `replicas`, nothing counts as stored before so many of Redis's replicas have it.
        """
        self.redis = redis
        self.prefix = f"usher:{account}:"
        self._kept = max(kept, REMEMBERED)
        self._pipelines = Pipelines(redis, self.prefix, replicas=replicas)

    async def put(self, delivery: Delivery, *, at: int | None = None) -> bool:
        """Store a delivery, mark its subject and leave a job; False when its id was seen before.

        The subject is due at once, or at an instant (ms since the epoch).

        Raises:
            InboxUnavailable: Redis did not confirm it; Whop should send it again.
        """
        now, subject = delivery.received, delivery.subject or f"unknown:{delivery.id}"
        record = msgspec.json.encode(delivery)
        known = (delivery.id, subject, record, now, job(subject, now), self._kept)
        return bool(await self._pipelines.run(_PUT, *known, now if at is None else at))

    async def hear(self, message: Message) -> bool:
        """Count a message and keep nothing of it; False when it was counted before.

        Raises:
            InboxUnavailable: Redis did not confirm it; Whop should send it again.
        """
        who, now = (message.id, message.channel, message.sender), message.received
        counted = (*who, message.bucket, now, job("SUBJECT", now))
        return bool(await self._pipelines.run(_HEAR, *counted))

    async def mark(self, subject: str, reason: str, at: int) -> None:
        """Make a subject due at an instant (ms since the epoch) for another reason than a delivery.

        The id of a delivery that is stored already is a reason too: it goes on to this subject.

        Raises:
            InboxUnavailable: Redis did not confirm it.
        """
        await self._pipelines.run(_MARK, subject, reason, at, job(subject, at))

    async def ready(self) -> bool:
        """Say whether a delivery could be stored now; that Redis answers alone is not enough."""
        try:
            return bool(await self._pipelines.run(_PROBE))
        except InboxUnavailable:
            return False

    async def close(self) -> None:
        """Let what is on its way arrive, and close the connections."""
        await self._pipelines.close()
        await self.redis.aclose()
