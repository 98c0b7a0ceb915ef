"""Openings and locks: when each was due, and when the channel was as it should be."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

ON_TIME: Final = timedelta(seconds=1)


@dataclass(slots=True)
class Count:
    """All turns of one kind: late is after a second, missed is not before the next turn."""

    all: int = 0
    late: int = 0
    missed: int = 0
    latest: timedelta = timedelta(0)


@dataclass(slots=True)
class Turns:
    """The openings and locks of all rooms."""

    counts: dict[str, Count] = field(default_factory=lambda: {"opening": Count(), "lock": Count()})
    _pending: dict[str, tuple[str, datetime]] = field(default_factory=dict)

    def begin(self, room: str, kind: str, at: datetime) -> None:
        """Note that a room must open or lock now; what it did not do before is missed."""
        self.miss(room)
        self.counts[kind].all += 1
        self._pending[room] = (kind, at)

    def miss(self, room: str) -> None:
        """Note that a room did not turn in time for the next turn, or the end."""
        if room in self._pending:
            self.counts[self._pending.pop(room)[0]].missed += 1

    def done(self, room: str, now: datetime) -> None:
        """Note that a room is as it should be."""
        if room not in self._pending:
            return
        kind, at = self._pending.pop(room)
        count = self.counts[kind]
        count.late += now - at > ON_TIME
        count.latest = max(count.latest, now - at)

    def end(self) -> None:
        """Count what is still open at the end."""
        for room in list(self._pending):
            self.miss(room)
