"""The log of API calls: what the tests and the benchmark count, and the page shows."""

from collections import Counter, deque
from datetime import datetime

import msgspec

SIZE = 10_000


class Entry(msgspec.Struct, kw_only=True, frozen=True):
    """One call, and how it was answered."""

    time: datetime
    method: str
    path: str
    query: str
    operation: str
    status: int
    idempotency_key: str | None
    body: str


class Journal:
    """The last calls, and counts of all of them by operation and status."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque(maxlen=SIZE)
        self.counts: dict[str, Counter[int]] = {}

    def note(self, entry: Entry) -> None:
        """Remember a call."""
        self.entries.append(entry)
        self.counts.setdefault(entry.operation, Counter())[entry.status] += 1

    def of(self, operation: str | None = None) -> list[Entry]:
        """Return the remembered calls of one operation, or of all, oldest first."""
        return [one for one in self.entries if operation in (None, one.operation)]

    def clear(self) -> None:
        """Forget everything."""
        self.entries.clear()
        self.counts.clear()
