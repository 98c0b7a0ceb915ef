"""Which deliveries of Whop's log never arrived, and up to when nothing of it is missing. Pure.

The log has attempts, the newest first. Whop tries a delivery up to thirteen times in 71 hours, and
its next attempt may be twelve hours away: what failed, and has not arrived since, is taken after
its first failure. Where Whop delivers it later, too, it is known by its id. Instants of the log are
in Whop's time: the mark is taken from them and not from our clock, which may be ahead.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

OVERLAP: Final = timedelta(minutes=5)
"""How much is read again each time: an attempt may be entered into the log after a later one."""

QUIET: Final = timedelta(minutes=7)
"""After so long without an attempt nothing older is entered any more, and nothing is read again."""

REACH: Final = timedelta(days=30)
"""How far back Whop's log goes."""

REMEMBERED: Final = 20_000
"""Messages known to have arrived, of which earlier attempts may follow further down the log."""

T = TypeVar("T")


def begins(mark: datetime | None, now: datetime, since: datetime | None = None) -> datetime:
    """Return from when on the log is to be read: from the mark, or from where somebody says."""
    wanted = since or mark
    return max(wanted, now - REACH) if wanted else now - REACH


@dataclass(slots=True)
class Reading(Generic[T]):
    """One reading of the log, the newest attempt first."""

    now: datetime
    attempts: int = 0
    newest: datetime | None = None
    _arrived: dict[str, None] = field(default_factory=dict)
    _lost: dict[str, T] = field(default_factory=dict)

    def note(self, message: str, sent: datetime, what: T, *, arrived: bool) -> None:
        """Take note of an attempt; `what` is kept where its message turns out to be lost."""
        self.attempts += 1
        self.newest = max(self.newest or sent, sent)
        if arrived:
            self._arrived[message] = None
            if len(self._arrived) > REMEMBERED:
                del self._arrived[next(iter(self._arrived))]
        elif message not in self._arrived:
            self._lost.pop(message, None)  # its place is that of its first attempt
            self._lost[message] = what

    def lost(self) -> list[T]:
        """Return what has not arrived, by its first attempt, the oldest first: seats go by the
        order of buying.
        """
        return list(self._lost.values())[::-1]

    def complete_until(self, mark: datetime | None) -> datetime | None:
        """Return the next mark, once all that is lost is stored; it never goes back."""
        if self.newest is None:
            return mark
        quiet = self.now - self.newest > QUIET
        until = self.newest if quiet else self.newest - OVERLAP
        return max(until, mark) if mark else until
