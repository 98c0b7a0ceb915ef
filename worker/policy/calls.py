"""The calls to Whop that a plan needs, against Whop's quota."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

CHANNEL: Final = "GET /chat_channels/{id}"
CHANGE: Final = (CHANNEL, "PATCH /chat_channels/{id}")
"""Looking at a channel, and setting what differs."""

WRITE: Final = ("POST /messages",)
PIN: Final = ("PATCH /messages/{id}",)


@dataclass(frozen=True, slots=True)
class Quota:
    """So many calls of an operation may go in any so many seconds; Usher lets `used` of them go.

    The figures are those of `worker.whop.quota`.
    """

    calls: int = 600
    seconds: float = 60.0
    used: int = 570


@dataclass(frozen=True, slots=True)
class Load:
    """How one operation fares. `most` are asked for in the quota's time from `at` on.

    `late` is how many seconds the call waits that waits longest, and `late_at` when it was due.
    """

    operation: str
    total: int
    most: int
    at: datetime
    share: float
    late: float
    late_at: datetime


def making(products: int, *, welcome: bool) -> tuple[str, ...]:
    """Return the calls that make a room: look for it, make it, set it, open it, greet."""
    first = ("GET /experiences",) * products + ("POST /experiences", CHANNEL, *CHANGE)
    opened = ("GET /experiences/{id}", *("POST /experiences/{id}/attach",) * products)
    return first + opened + (("GET /messages", *WRITE) if welcome else ())


def archiving(products: int) -> tuple[str, ...]:
    """Return the calls that archive a room, besides those for its settings."""
    return ("POST /experiences/{id}/detach",) * products + ("PATCH /experiences/{id}",)


def loads(asked: Iterable[tuple[datetime, Sequence[str]]], quota: Quota) -> list[Load]:
    """Return how each operation fares, the busiest first; `asked` is in the order of time."""
    lines: defaultdict[str, list[float]] = defaultdict(list)
    for at, operations in asked:
        t = at.timestamp()
        for operation in operations:
            lines[operation].append(t)
    found = [_load(operation, times, quota) for operation, times in lines.items()]
    return sorted(found, key=lambda load: (-load.most, -load.total, load.operation))


def _load(operation: str, times: Sequence[float], quota: Quota) -> Load:
    most, at = _busiest(times, quota.seconds)
    late, late_at = _latest(times, quota)
    return Load(
        operation=operation,
        total=len(times),
        most=most,
        at=datetime.fromtimestamp(at, UTC),
        share=most / quota.calls,
        late=late,
        late_at=datetime.fromtimestamp(late_at, UTC),
    )


def _busiest(times: Sequence[float], seconds: float) -> tuple[int, float]:
    """Return how many calls a window holds at the most, and when the first such one begins."""
    steps = list(Counter(times).items())
    most, begins, inside, end = 0, times[0], 0, 0
    for t, count in steps:
        while end < len(steps) and steps[end][0] < t + seconds:
            inside += steps[end][1]
            end += 1
        if inside > most:
            most, begins = inside, t
        inside -= count
    return most, begins


def _latest(times: Sequence[float], quota: Quota) -> tuple[float, float]:
    """Return the longest wait for the quota, in seconds, and when that call was due."""
    went: list[float] = []
    longest, due = 0.0, times[0]
    for n, t in enumerate(times):
        free = went[n - quota.used] + quota.seconds if n >= quota.used else t
        went.append(max(t, free))
        if went[n] - t > longest:
            longest, due = went[n] - t, t
    return longest, due
