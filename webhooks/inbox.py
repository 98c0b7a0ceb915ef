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
running or kept, and the subject's name alone would lose what arrives while its job ends.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoScriptError, RedisError, ResponseError

from webhooks.chat import HEAR
from webhooks.events import Delivery, Message

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
  local job = subject .. '@' .. (tag or redis.call('INCR', prefix .. 'jobs'))
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

_PIPELINES: Final = 3
"""Pipelines on their way at once. One alone leaves this process idle while Redis writes to its
disk; each more makes the batches smaller."""

_REPLICAS_PATIENCE: Final = 1000
"""Milliseconds in which replicas must confirm. A delivery that was stored before is written once
more, or there would be nothing to confirm when Whop sends it again."""

_PATIENCE: Final = 5.0
"""Seconds that a pipeline may take. A script may still run after that: when Whop sends the
delivery again it is a duplicate, and nothing is lost."""


class InboxUnavailable(Exception):
    """Redis did not confirm that it has the delivery, so nothing may be promised."""


def connect(url: str, *, timeout: float | None = 5.0) -> Redis:
    """Return a client for `redis://`, `rediss://`, `unix://` or `redis+sentinel://`.

    A Sentinel URL reads `redis+sentinel://[user:password@]host:port,host:port/service[/db]`.
    Nothing is opened yet. Without a timeout (seconds for each answer) the caller brings their
    own, as the inbox does. A call that lost its connection is tried twice more within a second,
    which is safe: our scripts are idempotent.

    Raises:
        ValueError: the URL is of none of these kinds.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": 2.0,
        "socket_timeout": timeout,
        "retry": Retry(ExponentialBackoff(cap=0.4, base=0.1), 2),
        "retry_on_error": [OSError],
        "health_check_interval": 30,
    }
    if url.startswith("redis+sentinel://"):
        return _sentinel(url, options)
    client: Redis = Redis.from_url(url, **options)
    return _hearing(client)


class _Hearing:
    """A connection, of whatever kind, that takes uvloop's word for a lost one for what it means.

    Where the other side hangs up just before we write, uvloop raises a RuntimeError. Nobody takes
    that for an absence of Redis: not redis-py, which would try again, and not we.
    """

    async def send_packed_command(self, *given: Any, **options: Any) -> None:
        """Send, as redis-py does.

        Raises:
            Disconnected: the connection is lost.
        """
        try:
            await super().send_packed_command(*given, **options)  # type: ignore[misc]  # of redis-py's class beside it
        except RuntimeError as closed:
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]  # as above
            raise Disconnected(str(closed)) from closed


def _hearing(client: Redis) -> Redis:
    pool = client.connection_pool
    kind = pool.connection_class
    pool.connection_class = type(f"Hearing{kind.__name__}", (_Hearing, kind), {})
    return client


def _sentinel(url: str, options: dict[str, Any]) -> Redis:
    parts = urlsplit(url.replace("redis+sentinel", "sentinel", 1))
    login, _, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path.strip("/").partition("/")
    if not service or not hosts:
        raise ValueError("a Sentinel URL reads redis+sentinel://host:port,host:port/service/db")
    user, _, password = login.partition(":")
    nodes = [
        (host, int(port or 26379)) for host, _, port in (h.partition(":") for h in hosts.split(","))
    ]
    known = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]  # redis-py's gap
        nodes, sentinel_kwargs={"password": known.get("sentinel_password")}, **options
    )
    client: Redis = sentinel.master_for(
        service,
        db=int(db or 0),
        username=unquote(user) or None,
        password=unquote(password) or None,
    )
    return _hearing(client)


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

    It bounds each pipeline itself, so its client may do without a timeout for each answer.
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
        self._replicas = replicas
        self._waiting: list[tuple[tuple[Any, ...], asyncio.Future[int]]] = []
        self._senders: set[asyncio.Task[None]] = set()
        self._sending = 0
        self._shas: dict[str, str] = {}

    async def put(self, delivery: Delivery, *, at: int | None = None) -> bool:
        """Store a delivery, mark its subject and leave a job; False when its id was seen before.

        The subject is due at once, or at an instant (ms since the epoch).

        Raises:
            InboxUnavailable: Redis did not confirm it; Whop should send it again.
        """
        now, subject = delivery.received, delivery.subject or f"unknown:{delivery.id}"
        record = msgspec.json.encode(delivery)
        known = (delivery.id, subject, record, now, job(subject, now), self._kept)
        return bool(await self._run(_PUT, *known, now if at is None else at))

    async def hear(self, message: Message) -> bool:
        """Count a message and keep nothing of it; False when it was counted before.

        Raises:
            InboxUnavailable: Redis did not confirm it; Whop should send it again.
        """
        who, now = (message.id, message.channel, message.sender), message.received
        return bool(await self._run(_HEAR, *who, message.bucket, now, job("SUBJECT", now)))

    async def mark(self, subject: str, reason: str, at: int) -> None:
        """Make a subject due at an instant (ms since the epoch) for another reason than a delivery.

        The id of a delivery that is stored already is a reason too: it goes on to this subject.

        Raises:
            InboxUnavailable: Redis did not confirm it.
        """
        await self._run(_MARK, subject, reason, at, job(subject, at))

    async def ready(self) -> bool:
        """Say whether Redis answers."""
        try:
            return bool(await self.redis.ping())
        except (RedisError, OSError):
            return False

    async def close(self) -> None:
        """Let what is on its way arrive, and close the connections."""
        await asyncio.gather(*self._senders, return_exceptions=True)
        await self.redis.aclose()

    async def _run(self, script: str, *arguments: Any) -> int:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(((script, *arguments), answer))
        if self._sending < _PIPELINES:
            self._sending += 1
            sender = asyncio.create_task(self._send())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        return await answer

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._deliver(batch)
        finally:
            self._sending -= 1  # before anything else can run, or a call could wait for nobody

    async def _deliver(self, batch: list[tuple[tuple[Any, ...], asyncio.Future[int]]]) -> None:
        """Get every call of a batch its answer, whatever happens."""
        trouble = InboxUnavailable("the inbox was closed")
        results: list[Any] = [trouble] * len(batch)
        try:
            async with asyncio.timeout(_PATIENCE):
                results = await self._pipeline([call for call, _ in batch])
        except (RedisError, OSError) as error:
            trouble.args = (f"Redis did not answer: {str(error) or type(error).__name__}",)
        finally:
            for (_, answer), result in zip(batch, results, strict=True):
                _settle(answer, result)

    async def _pipeline(self, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send all calls in one round trip; load the scripts again where the server lost them.

        A connection that is lost on the way is tried once more: the scripts are idempotent.
        """
        shas = [await self._sha(script) for script, *_ in calls]
        commands = b"".join(
            pack_command(("EVALSHA", sha, 0, self.prefix, *arguments))
            for sha, (_, *arguments) in zip(shas, calls, strict=True)
        )
        try:
            results = await self._confirmed(commands, len(calls))
        except Disconnected:
            results = await self._confirmed(commands, len(calls))
        if any(isinstance(result, NoScriptError) for result in results):
            self._shas.clear()
            return await self._pipeline(calls)
        return results

    async def _confirmed(self, commands: bytes, expected: int) -> list[Any]:
        """Send commands, and have the replicas confirm them where that is wanted.

        A failover may choose a replica that lacks what the primary alone has stored.
        """
        if not self._replicas:
            return await self._exchange(commands, expected)
        parts: tuple[Any, ...] = ("WAIT", self._replicas, _REPLICAS_PATIENCE)
        wait = pack_command(parts)
        *results, confirmed = await self._exchange(commands + wait, expected + 1)
        if isinstance(confirmed, Exception):
            raise confirmed
        if confirmed < self._replicas:
            raise ResponseError("no replica of Redis has confirmed it in time")
        return results

    async def _exchange(self, commands: bytes, expected: int) -> list[Any]:
        """Write commands that are packed already, and read their answers.

        redis-py's own pipeline packs in Python and looks at each answer again: a third of what
        the receiver spends on a delivery.
        """
        pool = self.redis.connection_pool
        connection: Any = await pool.get_connection()
        results: list[Any] = []
        try:
            await connection.send_packed_command(commands)
            while len(results) < expected:
                results.append(await _answer(connection))
        finally:
            if len(results) < expected:  # whoever took it next would read our answers
                await connection.disconnect(nowait=True)
            await pool.release(connection)
        return results

    async def _sha(self, script: str) -> str:
        if script not in self._shas:
            self._shas[script] = await self.redis.script_load(script)
        return self._shas[script]


async def _answer(connection: Any) -> Any:
    """Read one answer; an error that the server sent is an answer too."""
    try:
        return await connection.read_response()
    except ResponseError as refusal:
        return refusal


def _settle(answer: "asyncio.Future[int]", result: Any) -> None:
    if answer.done():  # the request was cancelled while it waited
        return
    if isinstance(result, Exception):
        if not isinstance(result, InboxUnavailable):
            result = InboxUnavailable(f"Redis refused it: {result}")
        answer.set_exception(result)
    else:
        answer.set_result(result)
