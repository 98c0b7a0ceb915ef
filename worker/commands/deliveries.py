"""The deliveries that are kept, by time: read back, newest first."""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from webhooks.events import Delivery
from worker.memory.trail import Step
from worker.subjects import Look

PAGE: Final = 500

WAITS: Final = "waits"
DEAD: Final = "dead"
DONE: Final = "done"
DISCARDED: Final = "discarded"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which deliveries are meant: of a type or its beginning, of a user, not older than."""

    type: str | None = None
    user: str | None = None
    since: datetime | None = None

    def admits(self, delivery: Delivery) -> bool:
        """Say whether a delivery is meant."""
        wanted = self.type or ""
        right_type = delivery.type == wanted or delivery.type.startswith(f"{wanted}.")
        return (not wanted or right_type) and self.user in (None, delivery.user)


def subject_of(delivery: Delivery) -> str:
    """Return what a delivery makes due, as the inbox has it."""
    return delivery.subject or f"unknown:{delivery.id}"


def received(delivery: Delivery) -> datetime:
    """Return when a delivery was received."""
    return datetime.fromtimestamp(delivery.received / 1000, UTC)


class Deliveries:
    """Reads what the inbox keeps."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis: Any = redis
        self._prefix = prefix

    async def get(self, ids: Sequence[str]) -> list[Delivery]:
        """Return the deliveries of these ids that are still kept."""
        names = [f"{self._prefix}delivery:{id_}" for id_ in ids]
        rows: list[bytes | None] = await self._redis.mget(names) if names else []
        return [msgspec.json.decode(row, type=Delivery) for row in rows if row]

    async def newest(self, wanted: Filter) -> AsyncIterator[Delivery]:
        """Yield what is meant of all that is kept, the newest first."""
        least = wanted.since.timestamp() * 1000 if wanted.since else 0
        start, before = 0, set[bytes]()
        while True:
            rows = await self._redis.zrevrange(f"{self._prefix}received", start, start + PAGE - 1)
            # What arrives meanwhile moves the rest on, so that a page may repeat the one before.
            ids = [row.decode() for row in rows if row not in before]
            for delivery in await self.get(ids):
                if delivery.received < least:
                    return
                if wanted.admits(delivery):
                    yield delivery
            if len(rows) < PAGE:
                return
            start, before = start + PAGE, set(rows)

    async def states(self, deliveries: Sequence[Delivery]) -> list[str]:
        """Return what became of deliveries: each waits, is done, failed or was discarded."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for one in deliveries:
                pipe.lpos(f"{self._prefix}pending:{subject_of(one)}", one.id)
                pipe.hexists(f"{self._prefix}dead", subject_of(one))
            answers = await pipe.execute()
        pairs = zip(answers[::2], answers[1::2], strict=True)
        states = [DONE if at is None else DEAD if dead else WAITS for at, dead in pairs]
        over = [one for one, state in zip(deliveries, states, strict=True) if state == DONE]
        dropped = await self._discarded({subject_of(one) for one in over})
        return [
            DISCARDED if state == DONE and one.id in dropped else state
            for one, state in zip(deliveries, states, strict=True)
        ]

    async def _discarded(self, subjects: Collection[str]) -> set[str]:
        """Return the ids that a person dropped with these subjects, and that no look made good."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for subject in subjects:
                pipe.lrange(f"{self._prefix}trail:{subject}", 0, -1)
                pipe.lrange(f"{self._prefix}looks:{subject}", 0, -1)
            answers = await pipe.execute()
        found = set[str]()
        for trail, rows in zip(answers[::2], answers[1::2], strict=True):
            steps = [
                msgspec.json.decode(row, type=Step) for row in trail if b"job.discarded" in row
            ]
            looks = [msgspec.json.decode(row, type=Look) for row in rows] if steps else []
            good = max((look.at for look in looks if look.outcome == "done"), default=None)
            dropped = (step for step in steps if good is None or good < step.at)
            found |= {id_ for step in dropped for id_ in step.deliveries}
        return found
