"""What the process that reads a calendar is asked, and what it answers; both are JSON."""

from datetime import datetime

import msgspec

from worker.policy.occurrences import Occurrence


class Ask(msgspec.Struct, frozen=True):
    """What to look for: each room's word and zone, and how far to look."""

    since: datetime
    until: datetime
    rooms: dict[str, tuple[str, str]]


class Found(msgspec.Struct, frozen=True):
    """How many entries there are, and each room's dates in order; or why it cannot be told."""

    entries: int = 0
    rooms: dict[str, tuple[Occurrence, ...]] = {}
    error: str | None = None
