"""Catching up: what Whop could not deliver is taken from its own log of deliveries.

Whop tries a delivery again for 71 hours, up to twelve hours apart; its log keeps what it tried for
30 days. What has not succeeded comes in through the same door as a live delivery, after its first
failure, and is known by the same id. Redis has, under `usher:{account}:`:

    caught_up           Mark: up to when nothing is missing, by Whop's clock, and of which webhook
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec
import structlog
from redis.asyncio import Redis

from webhooks.events import INTERESTING, Delivery, Malformed, Message, read
from webhooks.inbox import Inbox
from worker.our_webhook import Ours, OurWebhook
from worker.policy.backlog import Reading, begins
from worker.whop.client import Whop
from worker.whop.errors import WhopError
from worker.whop.types import Attempt, Webhook

REPORTED: Final = 200
"""Unreadable attempts that are remembered, so that each is reported once."""

T = TypeVar("T")
Tell = Callable[[int, int], None]
"""Told, as the reading goes on, of how many attempts were read and how many deliveries stored."""

log = structlog.get_logger()


class Mark(msgspec.Struct, frozen=True):
    """Up to when nothing of a webhook's log is missing, and what of it could not be read."""

    webhook: str
    until: datetime
    unreadable: tuple[str, ...] = ()


@dataclass(slots=True)
class Found:
    """What a catch-up found: attempts that were read, and of those that are lost, what became.

    `stored` are new to us; `known` had come in another way; `ignored` are none of our business;
    `unreadable` are the ids of attempts that say nothing.
    """

    webhook: str
    since: datetime
    attempts: int = 0
    stored: int = 0
    known: int = 0
    ignored: int = 0
    unreadable: list[str] = field(default_factory=list)


class CatchUp:
    """Reads Whop's log of our webhook."""

    def __init__(
        self,
        inbox: Inbox,
        whop: Whop,
        *,
        account: str,
        ours: Ours,
        clock: Callable[[], datetime],
        spread: float = 0.0,
    ) -> None:
        """Read it for an account; `spread` is the seconds between two of those who waited."""
        self.webhook = OurWebhook(inbox.redis, inbox.prefix, whop, ours=ours, clock=clock)
        self._inbox = inbox
        self._redis: Redis = inbox.redis
        self._whop = whop
        self._account = account
        self._clock = clock
        self._spread = spread

    async def run(self, *, since: datetime | None = None, tell: Tell | None = None) -> Found | None:
        """Look after the webhook, and take in what never arrived since the mark, or since T.

        The mark moves when all of it is stored. None where there is no telling which webhook is
        ours, or the key may not see it: that is said once.

        Raises:
            Unavailable: Whop did not tell all; what it told is stored.
            InboxUnavailable: Redis did not take it; the next time does it again.
        """
        hook = await self.webhook.look_after()
        if hook is None:
            return None
        return await self._read(hook, since, tell or _nobody)

    # --- its log

    async def _read(self, hook: Webhook, since: datetime | None, tell: Tell) -> Found:
        now, mark = self._clock(), await self._mark(hook.id)
        first = begins(mark.until if mark else None, now, since)
        found = Found(hook.id, first)
        reading: Reading[Delivery | Message] = Reading(now)
        try:
            await self._walk(found, reading, tell)
        except WhopError:  # what was read until then is worth something
            await self._store(found, reading, tell)
            raise
        await self._store(found, reading, tell)
        self._report(found, mark)
        gapless = begins(mark.until if mark else None, now) >= first
        until = reading.complete_until(mark.until if mark else None)
        if gapless and until:
            unreadable = tuple(found.unreadable[:REPORTED])
            await self._save("caught_up", Mark(hook.id, until, unreadable))
        return found

    async def _walk(self, found: Found, reading: Reading[Any], tell: Tell) -> None:
        """Read the log back to where it is to begin. New attempts push it on: rows come twice."""
        sent: datetime | None = None
        async for attempt in self._whop.attempts(found.webhook):
            sent = attempt.sent_at or sent
            if sent is None:
                continue  # it is on its way just now; the next reading meets it
            if sent <= found.since:
                return
            found.attempts += 1
            if found.attempts % 100 == 0:
                tell(found.attempts, 0)
            try:
                message = opened(attempt, int(reading.now.timestamp() * 1000))
            except Malformed as why:
                if not attempt.success:
                    found.unreadable.append(f"{attempt.id}: {why}")
                continue
            reading.note(message.id, sent, message, arrived=attempt.success)

    async def _store(self, found: Found, reading: Reading[Any], tell: Tell) -> None:
        """Put what is lost through the door, the oldest first.

        Those who waited are due one after the other, no faster than the quota lets us look at
        them: who buys meanwhile does not stand at the end of a long line.
        """
        turns = dict[str | None, int]()
        for message in reading.lost():
            if not self._concerns_us(message):
                found.ignored += 1
                continue
            received = int(self._clock().timestamp() * 1000)
            turn = turns.setdefault(message.subject, len(turns))
            lost = msgspec.structs.replace(message, received=received)
            new = await self._inbox.put(lost, at=received + round(turn * self._spread * 1000))
            found.stored += new
            found.known += not new
            if found.stored % 100 == 0:
                tell(found.attempts, found.stored)

    def _concerns_us(self, message: Delivery | Message) -> bool:
        if message.account not in (None, self._account):
            return False
        return isinstance(message, Delivery) and message.type in INTERESTING

    def _report(self, found: Found, mark: Mark | None) -> None:
        known = mark.unreadable if mark else ()
        for line in found.unreadable[:REPORTED]:
            if line not in known:
                log.warning("catch_up.unreadable", webhook=found.webhook, attempt=line)
        if found.stored:
            log.warning(
                "catch_up.found", webhook=found.webhook, stored=found.stored, since=str(found.since)
            )

    # --- what is remembered

    async def _mark(self, webhook: str) -> Mark | None:
        """Return the mark; another webhook's says nothing of ours."""
        mark = await self._load("caught_up", Mark)
        return mark if mark and mark.webhook == webhook else None

    async def _load(self, name: str, kind: type[T]) -> T | None:
        record: Any = await self._redis.get(self._inbox.prefix + name)
        return None if record is None else msgspec.json.decode(record, type=kind)

    async def _save(self, name: str, value: Any) -> None:
        await self._redis.set(self._inbox.prefix + name, msgspec.json.encode(value))


def opened(attempt: Attempt, now: int) -> Delivery | Message:
    """Read what an attempt carried, whether Whop logged it as an object or as a text.

    Raises:
        Malformed: it is neither, or not a delivery.
    """
    body = attempt.body
    return read(body.encode() if isinstance(body, str) else msgspec.json.encode(body), received=now)


def _nobody(_: int, __: int) -> None:
    """Be told, and say nothing."""
