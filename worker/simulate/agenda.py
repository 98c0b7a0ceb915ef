"""The agenda of virtual time: what happens when, in order."""

import heapq
from collections.abc import Callable
from datetime import datetime

Act = Callable[[], None]


class Agenda:
    """Acts with their instants; two of one instant keep the order in which they were entered."""

    def __init__(self) -> None:
        self._count = 0
        self._heap: list[tuple[datetime, int, Act]] = []

    def at(self, when: datetime, act: Act) -> None:
        """Enter an act."""
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, act))

    def next(self) -> datetime | None:
        """Return the instant of the next act, if there is one."""
        return self._heap[0][0] if self._heap else None

    def do(self, now: datetime) -> bool:
        """Do all that is due, but for what it enters itself; say whether anything was."""
        due: list[Act] = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        for act in due:
            act()
        return bool(due)


class Clock:
    """Virtual time: it stands still until somebody sets it."""

    def __init__(self, start: datetime) -> None:
        self.now = start

    def __call__(self) -> datetime:
        """Return the time, as a clock that is handed in does."""
        return self.now

    def unix(self) -> float:
        """Return the time as Unix seconds, as the receiver wants it."""
        return self.now.timestamp()
