"""Sight: what the key may see, so that an empty answer is not taken for nothing being there.

Without `member:basic:read` Whop answers the list of memberships with 200 and no rows. So an answer
that would take something from somebody counts only where Whop says that the key may see what it is
about. Redis has, under `usher:{account}:`:

    permissions         Known: what the key may do, as Whop said last
    blind               set: subjects that wait because the key may not see what they are about
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final, cast

import msgspec
import structlog
from redis.asyncio import Redis

from webhooks.inbox import Inbox
from worker.meters import Meters
from worker.whop.client import Whop
from worker.whop.errors import Blind, Rejected, WhopError
from worker.whop.permissions import NEEDS, WELCOME

MEMBERS: Final = "member:basic:read"
"""Without it, memberships are hidden and nobody is told (seen on Whop's sandbox, 2026-10)."""

SIGHTED: Final = "sighted"
"""Why a subject is due that waited for the key to see again."""

WANTED: Final = tuple(
    sorted({one for needs in NEEDS.values() for one in needs.split(", ")} - WELCOME)
)

log = structlog.get_logger()


class Known(msgspec.Struct, frozen=True):
    """What the key may do of what Usher asks of it, and what not, and when Whop was asked."""

    granted: tuple[str, ...]
    lacking: tuple[str, ...]
    asked: datetime


class Sight:
    """One account's key, and what it may see."""

    def __init__(
        self, inbox: Inbox, whop: Whop, *, clock: Callable[[], datetime], meters: Meters
    ) -> None:
        self._inbox = inbox
        self._redis: Redis = inbox.redis
        self._whop = whop
        self._clock = clock
        self._meters = meters
        self._turn = asyncio.Lock()
        self._questions = 0
        self._answer: Known | WhopError | None = None

    async def known(self) -> Known | None:
        """Return what Whop said last; None while nobody has asked."""
        record: Any = await self._redis.get(self._key("permissions"))
        return None if record is None else msgspec.json.decode(record, type=Known)

    async def lacking(self) -> tuple[str, ...]:
        """Return the permissions that the key lacks, as far as Whop was asked."""
        known = await self.known()
        return known.lacking if known else ()

    async def refresh(self) -> Known:
        """Ask Whop now; who asks while a question is on its way shares the next one.

        An answer to a question of before would say nothing of the answer that is in doubt.

        Raises:
            Blind: Whop does not say what the key may do.
            Unavailable: it does not answer.
        """
        before = self._questions
        async with self._turn:
            if self._questions == before or self._answer is None:
                self._questions += 1
                self._answer = None  # and so it stays where this question is broken off
                try:
                    self._answer = await self._ask()
                except WhopError as error:
                    self._answer = error
            if isinstance(self._answer, WhopError):
                raise self._answer
            return self._answer

    async def require(self, *actions: str) -> None:
        """Go on only where the key may do these things, as Whop says now.

        Raises:
            Blind: it may not, or Whop does not say.
            Unavailable: Whop does not answer.
        """
        lacking = sorted({*actions} - {*(await self.refresh()).granted})
        if lacking:
            raise Blind(
                "GET /permissions",
                f"the key lacks {', '.join(lacking)}, so that what Whop shows may be less than "
                "there is: nothing is taken from anybody until it is given to the key",
            )

    async def _ask(self) -> Known:
        before = await self.known()
        try:
            granted = await self._whop.permitted(WANTED)
        except Rejected as error:
            raise Blind(
                error.operation, f"Whop does not say what the key may do: {error}"
            ) from error
        lacking = tuple(one for one in WANTED if one not in granted)
        known = Known(tuple(sorted(granted)), lacking, self._clock())
        await self._redis.set(self._key("permissions"), msgspec.json.encode(known))
        self._meters.permissions(lacking)
        if lacking and (before is None or before.lacking != lacking):
            log.warning(
                "permissions.lacking", lacking=list(lacking), next="give them to the API key"
            )
        elif before and before.lacking and not lacking:
            log.info("permissions.granted", granted=list(before.lacking))
        if MEMBERS in granted:
            await self._see_again()
        return known

    async def blinded(self, subject: str) -> None:
        """Remember that a subject waits for the key to see again."""
        await cast("Awaitable[int]", self._redis.sadd(self._key("blind"), subject))

    async def waiting(self) -> int:
        """Return how many subjects wait for the key to see again."""
        return await cast("Awaitable[int]", self._redis.scard(self._key("blind")))

    async def _see_again(self) -> None:
        """Have everybody looked at who waited; each is forgotten once it is due."""
        name, now = self._key("blind"), int(self._clock().timestamp() * 1000)
        subjects = await cast("Awaitable[set[bytes]]", self._redis.smembers(name))
        for subject in sorted(subjects):
            await self._inbox.mark(subject.decode(), SIGHTED, now)
            await cast("Awaitable[int]", self._redis.srem(name, subject))

    def _key(self, name: str) -> str:
        return f"{self._inbox.prefix}{name}"
