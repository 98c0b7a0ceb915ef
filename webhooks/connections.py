"""Who may hold a connection, and for how long: against senders that stall and senders that pour.

A connection is being read, being answered, or idle, and of each kind the oldest is known. A request
must be whole within seconds of its first byte; connections, and the bytes of what is being read,
have a bound for all together, and beyond it the oldest that stalls goes first, then the oldest that
is idle. What Whop sends is whole in milliseconds, and so is never among the oldest.

`usher receive` has it; under uvicorn's own command say `--http webhooks.connections:Guarded`.
"""

import asyncio
import itertools
from collections import Counter, OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Reason = Literal["silent", "stalled", "untaken", "crowded", "greedy"]

_LOOK_EVERY: Final = 0.25
_LOOK_ON_IN: Final = 0.02
_AT_ONCE: Final = 200
_TELL_EVERY: Final = 60.0
_OTHER_FILES: Final = 100
_LATE: Final = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: application/json\r\n"
    b'content-length: 20\r\n\r\n{"status":"timeout"}'
)

logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the connections of one process may take, all together and each."""

    connections: int = 2_000
    held: int = 32 * 1024 * 1024
    """Bytes of requests that are being read or answered."""

    head: int = 1024 * 1024
    """Bytes that come before a body."""

    pipelined: int = 16
    """Requests that one connection sends before it has read their answers."""

    whole_within: float = 5.0
    """Seconds from a request's first byte to its last; and from a connection's start to a byte."""

    taken_within: float = 10.0
    """Seconds from a request's last byte until its answer is on its way."""


@dataclass(slots=True)
class Crowd:
    """All connections of the process, the oldest of each kind first."""

    bounds: Bounds = field(default_factory=Bounds)
    reading: "OrderedDict[Guarded, float]" = field(default_factory=OrderedDict)
    answering: "OrderedDict[Guarded, float]" = field(default_factory=OrderedDict)
    idle: "OrderedDict[Guarded, float]" = field(default_factory=OrderedDict)
    held: int = 0
    cut: Counter[Reason] = field(default_factory=Counter)
    _told: Counter[Reason] = field(default_factory=Counter)
    _told_at: float = float("-inf")
    _watch: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self.reading) + len(self.answering) + len(self.idle)

    def put(self, one: "Guarded", kind: "OrderedDict[Guarded, float]") -> None:
        """Note what a connection does from now on."""
        if one.cut:
            return
        self.reading.pop(one, None)
        self.answering.pop(one, None)
        self.idle.pop(one, None)
        kind[one] = one.loop.time()

    def enter(self, one: "Guarded") -> None:
        """Take a new connection in, and send the oldest away where there are too many."""
        self.put(one, self.reading)
        if len(self) > self.bounds.connections:
            self._shed("crowded", spare=one)
        if self._watch is None:
            self._watch = one.loop.call_later(_LOOK_EVERY, self._look, one.loop)

    def leave(self, one: "Guarded") -> None:
        """Forget a connection, and what it held."""
        self.reading.pop(one, None)
        self.answering.pop(one, None)
        self.idle.pop(one, None)
        self.let_go(one)

    def hold(self, one: "Guarded", size: int) -> None:
        """Count bytes, and send the oldest away where there are too many."""
        one.held += size
        self.held += size
        while self.held > self.bounds.held and not one.cut:
            self._shed("greedy", spare=one)

    def let_go(self, one: "Guarded") -> None:
        """Count the bytes of a connection no more."""
        self.held -= one.held
        one.held = 0

    def turn_away(self, one: "Guarded", reason: Reason) -> None:
        """Cut a connection."""
        self.cut[reason] += 1
        self.leave(one)
        one.hang_up(politely=reason == "stalled")

    def _shed(self, reason: Reason, *, spare: "Guarded") -> None:
        for kind in (self.reading, self.idle):
            for oldest in kind:
                if oldest is not spare:
                    self.turn_away(oldest, reason)
                    return
        self.turn_away(spare, reason)  # all the others wait for their answers

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        late = self._overdue(self.reading, now - self.bounds.whole_within)
        for one in late:
            self.turn_away(one, "stalled" if one.held else "silent")
        for one in self._overdue(self.answering, now - self.bounds.taken_within):
            self.turn_away(one, "untaken")
        self._tell(now)
        delay = _LOOK_EVERY if len(late) < _AT_ONCE else _LOOK_ON_IN
        self._watch = loop.call_later(delay, self._look, loop) if len(self) else None

    def _overdue(self, kind: "OrderedDict[Guarded, float]", limit: float) -> "list[Guarded]":
        """Return the oldest, as many as are cut without keeping the others waiting."""
        aged = itertools.takewhile(lambda one: one[1] <= limit, kind.items())
        return [one for one, _ in itertools.islice(aged, _AT_ONCE)]

    def _tell(self, now: float) -> None:
        """Say who was cut, once a minute at the most. Who said nothing is no news."""
        news = {str(why): number for why, number in (self.cut - self._told).items()}
        news.pop("silent", None)
        if news and now - self._told_at >= _TELL_EVERY:
            self._told, self._told_at = self.cut.copy(), now
            logger.warning("connections.cut", connections=len(self), held=self.held, **news)


class _TooMuch(Exception):
    """Stops the parser: nobody sends that who wants an answer."""


class Guarded(HttpToolsProtocol):
    """One connection, which the crowd knows of."""

    crowd = Crowd()
    """One for the process, as its descriptors are."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.held = 0
        self.cut = False
        self._headed = False
        self._whole = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin."""
        super().connection_made(transport)
        self.crowd.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self.crowd.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read, if there is room for it."""
        self.crowd.hold(self, len(data))
        if not self.cut:
            super().data_received(data)
            if not self._whole and not self._headed and self.held > self.crowd.bounds.head:
                self.crowd.turn_away(self, "greedy")

    def on_message_begin(self) -> None:
        """Note a request's first byte."""
        self._whole = self._headed = False
        self.crowd.put(self, self.crowd.reading)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that its body follows."""
        self._headed = True
        super().on_headers_complete()
        if len(self.pipeline) > self.crowd.bounds.pipelined:
            raise _TooMuch

    def on_message_complete(self) -> None:
        """Note its last byte."""
        self._whole = True
        answered = self.cycle.response_complete
        self.crowd.put(self, self.crowd.idle if answered else self.crowd.answering)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Note that it is answered; what remains of it must come in time all the same."""
        self.crowd.let_go(self)
        if self._whole:
            self.crowd.put(self, self.crowd.answering if self.pipeline else self.crowd.idle)
        super().on_response_complete()

    def hang_up(self, *, politely: bool) -> None:
        """Close the connection; politely, it says why."""
        self.cut = True
        if politely and not self._answered() and not self.transport.is_closing():
            self.transport.write(_LATE)
            self.transport.close()
        else:
            self.transport.abort()

    def _answered(self) -> bool:
        cycle: Any = self.cycle  # None before the first, whatever its type says
        return cycle is not None and cycle.response_started and not cycle.response_complete


def make_room(bounds: Bounds) -> Bounds:
    """Have the system give us the descriptors for the connections, or bound them by what it gives.

    As many again may be accepted before those that are cut are closed.
    """
    try:
        import resource  # noqa: PLC0415 - not every system has it
    except ImportError:
        return bounds
    wanted = 2 * bounds.connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    given = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if given > soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (given, hard))
        soft = given
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return bounds
    return replace(bounds, connections=max((soft - _OTHER_FILES) // 2, 1))
