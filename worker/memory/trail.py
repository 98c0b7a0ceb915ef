"""The trail: what was done and why, so that `usher explain` can tell.

trail:{subject}     list of JSON: what was done and why, the newest last, the last 200
"""

from collections.abc import Awaitable, Sequence
from datetime import datetime, timedelta
from typing import Final, cast

import msgspec

from worker.memory.shelf import Shelf

TRAIL_LENGTH: Final = 200
TRAIL_LIFE: Final = timedelta(days=400)


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a subject's trail.

    `id` is the object of Whop's that the step made or ended, `call` what Whop answered to it, and
    `deliveries` what the job was for.
    """

    at: datetime
    what: str
    why: str | None = None
    room: str | None = None
    id: str | None = None
    deliveries: tuple[str, ...] = ()
    call: str | None = None


class Trail(Shelf):
    """What was done for each subject."""

    async def trail(self, subject: str, steps: Sequence[Step]) -> None:
        """Write down what was done for a subject, and why."""
        if not steps:
            return
        key = f"{self._prefix}trail:{subject}"
        await self._write(
            ("RPUSH", key, *(msgspec.json.encode(step) for step in steps)),
            ("LTRIM", key, -TRAIL_LENGTH, -1),
            ("EXPIRE", key, int(TRAIL_LIFE.total_seconds())),
        )

    async def steps(self, subject: str) -> list[Step]:
        """Return what was done for a subject, the newest last."""
        key = f"{self._prefix}trail:{subject}"
        rows = await cast("Awaitable[list[bytes]]", self._redis.lrange(key, 0, -1))
        return [msgspec.json.decode(row, type=Step) for row in rows]
