"""Scripts on their way to Redis. Those that wait at the same time share a round trip, and each has
a deadline of its own, counted from the moment it came in, whatever it waits for.

A few round trips are on their way at once, each on a connection of its own. One that has no answer
after half a second may have gone to a place where nobody is any more: it keeps its connection and
its chance, but no longer its turn. What waits goes on a new connection, what went along goes there
once more, and the answer that comes first counts; scripts must be idempotent. So Redis that is back
is found within a second, though old connections to it may hang for long.
"""

import asyncio
import functools
import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from hiredis import pack_command
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoScriptError, RedisError, ResponseError

PATIENCE: Final = 2.5
"""Seconds that a call waits. Its script may still run after that: when Whop sends the delivery
again it is a duplicate, and nothing is lost."""

_STUCK: Final = 0.5
"""Seconds after which a round trip loses its turn."""

_LOOK_EVERY: Final = 0.1
"""Seconds between two looks at the clock, for all calls together: a timer for each would cost what
its signature does."""

_TURNS: Final = 3
"""Round trips on their way at once. One alone leaves this process idle while Redis writes to its
disk; each more makes the batches smaller."""

_REPLICAS_PATIENCE: Final = 1000
"""Milliseconds in which replicas must confirm. A delivery that was stored before is written once
more, or there would be nothing to confirm when Whop sends it again."""


class InboxUnavailable(Exception):
    """Redis did not confirm that it has the delivery, so nothing may be promised."""


class _Call:
    """One script with its arguments, and who waits for its answer."""

    __slots__ = ("answer", "arguments", "made", "script", "tries")

    def __init__(
        self, script: str, arguments: tuple[Any, ...], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.script = script
        self.arguments = arguments
        self.answer: asyncio.Future[int] = loop.create_future()
        self.made = loop.time()
        self.tries = 1  # that are open

    def settle(self, result: Any) -> None:
        """Take what a try came to; its failure is the call's only where it was the last."""
        self.tries -= 1
        if self.answer.done():  # by another try, by the clock, or because nobody waits any more
            return
        if not isinstance(result, Exception):
            self.answer.set_result(result)
        elif self.tries == 0:
            if not isinstance(result, InboxUnavailable):
                result = InboxUnavailable(f"Redis refused it: {result}")
            self.answer.set_exception(result)

    def expire(self) -> None:
        """Tell who waits that the time is up."""
        if not self.answer.done():
            self.answer.set_exception(
                InboxUnavailable(f"Redis did not answer within {PATIENCE:g} seconds")
            )


class _Trip:
    """Whoever makes round trips, one after the other, with what is on its way just now."""

    __slots__ = ("calls", "stuck", "stuck_at", "task")

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.stuck = False
        self.stuck_at = math.inf
        self.task: asyncio.Task[None]


class Pipelines:
    """The way of scripts to Redis; the client gives the connections, and may do without timeouts.

    Its pool only knows of the connections, to close them at the end: it would let nobody have one
    while somebody waits for one.
    """

    def __init__(self, redis: Redis, prefix: str, *, replicas: int = 0) -> None:
        """Use a client; each script gets the prefix as its first argument.

        With `replicas`, nothing counts as done before so many of Redis's replicas have it.
        """
        self._redis = redis
        self._prefix = prefix
        self._replicas = replicas
        self._waiting: list[_Call] = []
        self._trips: set[_Trip] = set()
        self._turns = 0
        self._idle: list[Any] = []
        self._loaded: set[str] = set()
        self._watch: asyncio.TimerHandle | None = None

    async def run(self, script: str, *arguments: Any) -> int:
        """Run a script.

        Raises:
            InboxUnavailable: Redis did not confirm that it ran, within `PATIENCE` at the most.
        """
        loop = asyncio.get_running_loop()
        call = _Call(script, arguments, loop)
        self._waiting.append(call)
        if self._watch is None:
            self._watch = loop.call_later(_LOOK_EVERY, self._look, loop)
        if self._turns < _TURNS:
            self._set_out()
        return await call.answer

    async def close(self) -> None:
        """Let what is on its way arrive, and close the connections."""
        while self._trips:
            await asyncio.wait([trip.task for trip in self._trips])
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._hang_up()

    # --- turns, and the clock

    def _set_out(self) -> None:
        trip = _Trip()
        self._turns += 1
        self._trips.add(trip)
        trip.task = asyncio.create_task(self._travel(trip))

    async def _travel(self, trip: _Trip) -> None:
        try:
            while self._waiting and not trip.stuck:
                trip.calls, self._waiting = self._waiting, []
                await self._deliver(trip)
                trip.calls = []
        finally:
            self._trips.discard(trip)
            if not trip.stuck:
                self._turns -= 1  # before anything else can run, or a call could wait for nobody

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at the clock: who is stuck, and whose time is up."""
        now = loop.time()
        for call in self._all():
            if call.made + PATIENCE <= now:
                call.expire()
        for trip in self._trips:
            if trip.calls and not trip.stuck and trip.stuck_at <= now:
                self._pass_by(trip)
            if trip.stuck and all(call.answer.done() for call in trip.calls):
                trip.task.cancel()  # nobody waits for it any more
        self._waiting = [call for call in self._waiting if not call.answer.done()]
        if self._waiting and self._turns < _TURNS:
            self._set_out()
        going_on = self._waiting or self._trips
        self._watch = loop.call_later(_LOOK_EVERY, self._look, loop) if going_on else None

    def _all(self) -> Iterable[_Call]:
        yield from self._waiting
        for trip in self._trips:
            yield from trip.calls

    def _pass_by(self, trip: _Trip) -> None:
        """Give a trip's turn away, and its calls another try."""
        trip.stuck = True
        self._turns -= 1
        again = [call for call in trip.calls if call.tries == 1 and not call.answer.done()]
        for call in again:
            call.tries += 1
        self._waiting[:0] = again
        self._hang_up()

    # --- one round trip

    async def _deliver(self, trip: _Trip) -> None:
        """Get every call of a batch its answer, whatever happens."""
        trouble = InboxUnavailable("the inbox was closed")
        results: Sequence[Any] = [trouble] * len(trip.calls)
        try:
            results = await self._answers(trip)
        except (RedisError, OSError) as error:
            trouble.args = (f"Redis did not answer: {str(error) or type(error).__name__}",)
        finally:
            for call, result in zip(trip.calls, results, strict=True):
                call.settle(result)

    async def _answers(self, trip: _Trip) -> Sequence[Any]:
        """Send all calls in one round trip; once more where the connection was lost on the way."""
        try:
            return await self._asked(trip)
        except Disconnected:
            self._hang_up()
            return await self._asked(trip)

    async def _asked(self, trip: _Trip) -> Sequence[Any]:
        """Send all calls; those once more whose scripts a server has lost that knew them."""
        results = await self._ran(trip, trip.calls)
        unknown = [n for n, result in enumerate(results) if isinstance(result, NoScriptError)]
        if unknown:
            self._loaded.clear()
            again = await self._ran(trip, [trip.calls[n] for n in unknown])
            for n, result in zip(unknown, again, strict=True):
                results[n] = result
        return results

    async def _ran(self, trip: _Trip, calls: Sequence[_Call]) -> list[Any]:
        scripts = {call.script for call in calls} - self._loaded
        loads = b"".join(_packed("SCRIPT", "LOAD", script) for script in scripts)
        runs = b"".join(
            _packed("EVALSHA", _sha(call.script), 0, self._prefix, *call.arguments)
            for call in calls
        )
        results = await self._confirmed(trip, loads + runs, len(scripts) + len(calls))
        self._loaded |= scripts
        return results[len(scripts) :]

    async def _confirmed(self, trip: _Trip, commands: bytes, expected: int) -> list[Any]:
        """Send commands, and have the replicas confirm them where that is wanted.

        A failover may choose a replica that lacks what the primary alone has stored.
        """
        if not self._replicas:
            return await self._exchange(trip, commands, expected)
        wait = _packed("WAIT", self._replicas, _REPLICAS_PATIENCE)
        *results, confirmed = await self._exchange(trip, commands + wait, expected + 1)
        if isinstance(confirmed, int) and confirmed >= self._replicas:
            return results
        trouble = ResponseError("no replica of Redis has confirmed it in time")
        # What was not run at all is still to be sent again.
        return [one if isinstance(one, NoScriptError) else trouble for one in results]

    async def _exchange(self, trip: _Trip, commands: bytes, expected: int) -> list[Any]:
        """Write commands that are packed already, and read their answers.

        redis-py's own pipeline packs in Python and looks at each answer again: a third of what
        the receiver spends on a delivery.
        """
        loop = asyncio.get_running_loop()
        trip.stuck_at = loop.time() + _STUCK
        pool: Any = self._redis.connection_pool
        connection: Any = self._idle.pop() if self._idle else pool.get_available_connection()
        results: list[Any] = []
        try:
            await pool.ensure_connection(connection)
            await connection.send_packed_command(commands, check_health=False)
            while len(results) < expected:
                results.append(await _answer(connection))
                if self._replicas:  # Redis is there, and waits for them
                    trip.stuck_at = loop.time() + _STUCK + _REPLICAS_PATIENCE / 1000
        finally:
            if len(results) < expected:
                connection.hang_up()  # or whoever took it next would read our answers
            self._idle.append(connection)
        return results

    def _hang_up(self) -> None:
        """Close what is idle: what became of one connection may have become of all."""
        for connection in self._idle:
            connection.hang_up()


def _packed(*parts: Any) -> bytes:
    command: bytes = pack_command(parts)
    return command


@functools.cache
def _sha(script: str) -> str:
    """Return the name under which Redis knows a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


async def _answer(connection: Any) -> Any:
    """Read one answer; an error that the server sent is an answer too."""
    try:
        return await connection.read_response()
    except ResponseError as refusal:
        return refusal
