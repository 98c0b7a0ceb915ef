"""The breaker: while Whop is down, jobs wait and no try is counted, on all workers alike.

Its law is in `worker.policy.breaker`. Redis has, besides, under `usher:{account}:`:

    breaker             State: the latest outages and the last probe
    heard               list: how many calls each worker made in a second or so, and how many
                        failed; the last 30 seconds matter, and all since anybody was answered
    probing             who probes now
    begun:{ms}          how many jobs have begun since Whop came back at that instant
"""

import asyncio
import contextlib
import math
import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from worker.policy import breaker as law
from worker.policy.breaker import Heard, Phase, State
from worker.whop.client import Whop
from worker.whop.errors import Limited, Rejected, UnexpectedShape, WhopError
from worker.whop.transport import Listener

EVERY: Final = 1.0
"""Seconds between two looks at what the other workers know."""

POLL: Final = 0.1
PROBE_WITHIN: Final = 15.0
PROBE_LEASE: Final = 30_000
"""Milliseconds after which a probe is another worker's: longer than a probe takes."""

REPORTS: Final = 1000
LONGEST: Final = 45 * 60
"""Seconds that a job waits here at the most; arq cuts off after an hour what runs."""

Probe = Callable[[], Awaitable[bool]]

log = structlog.get_logger()

_BEGIN: Final = """
local begun = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if begun <= tonumber(ARGV[1]) then return 1 end
redis.call('DECR', KEYS[1])
return 0
"""
"""Lua: one more job begins, unless as many as may have begun already."""

_CONCLUDE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] ~= '' then redis.call('SET', KEYS[2], ARGV[2]) end
return redis.call('DEL', KEYS[1])
"""
"""Lua: end a probe and tell what came of it, unless it took so long that another's has begun."""


class Breaker:
    """One worker's part of the breaker; it is told of every call to Whop."""

    def __init__(
        self,
        redis: Redis,
        prefix: str,
        *,
        clock: Callable[[], datetime],
        listener: Listener | None = None,
    ) -> None:
        self._redis = redis
        self._prefix = prefix
        self._clock = clock
        self._listener = listener
        self._begin = redis.register_script(_BEGIN)
        self._conclude = redis.register_script(_CONCLUDE)
        self._state = State()
        self._calls = self._failed = 0
        self._line = asyncio.Lock()
        self._dismissed = False

    # --- what the client tells

    def waited(self, seconds: float) -> None:
        """Pass on how long a call waited for the quota."""
        if self._listener:
            self._listener.waited(seconds)

    def called(self, *, answered: bool) -> None:
        """Count a call; the next turn tells the other workers."""
        self._calls += 1
        self._failed += not answered
        if self._listener:
            self._listener.called(answered=answered)

    # --- what jobs ask

    @property
    def phase(self) -> Phase:
        """What jobs may do now, as far as this worker knows."""
        return law.phase(self._state, self._clock())

    @property
    def open(self) -> bool:
        """Say whether Whop is down, as far as this worker knows."""
        return self.phase is Phase.OPEN

    def time_lost(self, since: datetime) -> timedelta:
        """Return how much of the time since an instant Whop was down."""
        return law.time_lost(self._state, since, self._clock())

    async def gate(self, *, ahead: bool) -> bool:
        """Wait until a job may begin, in the order of asking; False where it is to be put off:
        it waited too long, or the worker stops.

        Those who go `ahead` wait for Whop alone, and not for their turn when it has come back.
        """
        if self.phase is Phase.CLOSED:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST):
                if ahead:
                    await self._until(self._not_open)
                else:
                    async with self._line:
                        await self._until(self._begins)
                return not self._dismissed
        return False

    def dismiss(self) -> None:
        """Let nobody wait any more: the worker stops."""
        self._dismissed = True

    async def _until(self, may: Callable[[], Awaitable[bool]]) -> None:
        while not (self._dismissed or await may()):  # noqa: ASYNC110 - other processes find out too
            await asyncio.sleep(POLL)

    async def _not_open(self) -> bool:
        return not self.open

    async def _begins(self) -> bool:
        most, outages = law.may_have_begun(self._state, self._clock()), self._state.outages
        if most in (0, math.inf) or not outages or not outages[-1].ended:
            return most != 0
        key = f"{self._prefix}begun:{int(outages[-1].ended.timestamp() * 1000)}"
        life = 2 * law.RAMP // timedelta(milliseconds=1)
        return bool(await self._begin(keys=[key], args=[int(most), life]))

    # --- what goes on beside

    async def keep(self, probe: Probe) -> None:
        """Take turns for as long as the worker runs."""
        while True:
            try:
                await self.turn(probe)
            except (RedisError, OSError):
                pass  # the worker's own matter
            except Exception:  # or its jobs would wait for ever for what the others know
                log.exception("breaker.broke")
            await asyncio.sleep(EVERY)

    async def learn(self) -> None:
        """Learn what the other workers know, before the first job."""
        self._know(await self._redis.get(f"{self._prefix}breaker"))

    async def turn(self, probe: Probe) -> None:
        """Tell what was heard, learn what the others know, and probe where it is our part."""
        heard = await self._exchange()
        if law.wants_probe(self._state, heard, self._clock()):
            await self._probe(probe, law.unanswered_since(heard))

    async def _exchange(self) -> list[Heard]:
        """Tell and read in one round trip; what was heard is of interest only in trouble."""
        calls, failed = self._calls, self._failed
        self._calls = self._failed = 0
        trouble = failed or self.phase is not Phase.CLOSED
        name = f"{self._prefix}heard"
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.get(f"{self._prefix}breaker")
            if calls:
                pipe.rpush(name, msgspec.json.encode(Heard(self._clock(), calls, failed)))
                pipe.ltrim(name, -REPORTS, -1)
                pipe.expire(name, law.SILENCE)
            if trouble:
                pipe.lrange(name, 0, -1)
            answers: list[Any] = await pipe.execute()
        self._know(answers[0])
        rows = answers[-1] if trouble else []
        return [msgspec.json.decode(row, type=Heard) for row in rows]

    def _know(self, record: bytes | None) -> None:
        self._state = msgspec.json.decode(record, type=State) if record else State()

    async def _probe(self, probe: Probe, silent: datetime | None) -> None:
        """Ask Whop, unless another worker does, and tell what came of it."""
        keys, token = [f"{self._prefix}probing", f"{self._prefix}breaker"], secrets.token_hex(8)
        if not await self._redis.set(keys[0], token, nx=True, px=PROBE_LEASE):
            return
        record = b""
        try:
            await self.learn()
            asked = self._state.probed
            if asked and timedelta(0) <= self._clock() - asked < law.PROBE_EVERY:
                return  # somebody has just done it
            answered, before = await probe(), self.phase
            state = law.probed(self._state, self._clock(), answered=answered, silent=silent)
            record = msgspec.json.encode(state)
        finally:
            told = await self._conclude(keys=keys, args=[token, record])
        if told:
            self._state = state
            self._say(before)

    def _say(self, before: Phase) -> None:
        if self.open and before is not Phase.OPEN:
            log.error(
                "whop.away",
                why="nearly every call fails, and so does a look at the account",
                next="jobs wait and go on by themselves; no try is counted",
            )
        elif before is Phase.OPEN and not self.open:
            began = self._state.outages[-1].began
            seconds = round((self._clock() - began).total_seconds())
            log.warning("whop.back", seconds=seconds, next="jobs go on, few at first")


def asking(whop: Whop) -> Probe:
    """Return the probe: two questions of different kinds; one answer, even a refusal, will do."""

    async def first_product() -> None:
        async for _ in whop.products():
            return

    async def permission() -> None:
        await whop.permitted(["chat:read"])

    async def probe() -> bool:
        return any(await asyncio.gather(_answered(permission()), _answered(first_product())))

    return probe


async def _answered(call: Awaitable[None]) -> bool:
    try:
        async with asyncio.timeout(PROBE_WITHIN):
            await call
    except TimeoutError:
        return False
    except WhopError as error:
        odd = isinstance(error, UnexpectedShape) and error.field is not None
        return odd or isinstance(error, Rejected | Limited)
    return True
