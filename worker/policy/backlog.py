"""Which deliveries of Whop's log never arrived, and up to when nothing of it is missing. Pure.

The log has attempts, the newest first. Whop tries a delivery up to four times in about 70 seconds,
so a young failure is not lost yet. Instants of the log are in Whop's time: the mark is taken from
them and not from our clock, which may be ahead.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

RETRIED: Final = timedelta(minutes=2)
"""How long after a failed attempt another one may come: Whop's 70 seconds, and slow answers."""

OVERLAP: Final = timedelta(minutes=5)
"""How much is read again each time: an attempt may be entered into the log after a later one."""

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
    _waiting: dict[str, datetime] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """The number of messages that Whop may yet try again."""
        return len(self._waiting)

    def note(self, message: str, sent: datetime, what: T, *, arrived: bool) -> None:
        """Take note of an attempt; `what` is kept where its message turns out to be lost."""
        self.attempts += 1
        self.newest = max(self.newest or sent, sent)
        if arrived:
            self._arrived[message] = None
            if len(self._arrived) > REMEMBERED:
                del self._arrived[next(iter(self._arrived))]
        elif message in self._waiting or self.now - sent < RETRIED:
            if message not in self._arrived:
                self._waiting[message] = min(self._waiting.get(message, sent), sent)
        elif message not in self._arrived and message not in self._lost:
            self._lost[message] = what

    def lost(self) -> list[T]:
        """Return what never arrived, the oldest first: seats go by the order of buying."""
        return list(self._lost.values())[::-1]

    def complete_until(self, mark: datetime | None) -> datetime | None:
        """Return the next mark, once all that is lost is stored; it never goes back."""
        if self.newest is None:
            return mark
        settled = self.now - self.newest > RETRIED + OVERLAP
        until = self.newest if settled else self.newest - OVERLAP
        if self._waiting:
            until = min(until, min(self._waiting.values()) - OVERLAP)
        return max(until, mark) if mark else until
