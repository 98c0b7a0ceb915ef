"""Catching up: what Whop could not deliver is taken from its own log of deliveries.

Whop tries a delivery for about 70 seconds and gives up; its log keeps what it tried for 30 days.
What never succeeded comes in through the same door as a live delivery, and is known by the same
id. Redis has, under `usher:{account}:`:

    caught_up           Mark: up to when nothing is missing, by Whop's clock, and of which webhook
    webhook             Health: how the webhook fares, as Whop told us last
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec
import structlog
from redis.asyncio import Redis

from webhooks.events import INTERESTING, Delivery, Malformed, Message, read
from webhooks.inbox import Inbox
from worker.policy.backlog import Reading, begins
from worker.whop.client import Whop
from worker.whop.errors import Forbidden, Missing, Rejected, WhopError
from worker.whop.types import Attempt, Webhook

DOOR: Final = "/webhooks/whop"
"""How the address of the receiver ends."""

FAILING: Final = 3
"""Deliveries in a row whose failure is worth a loud word; Whop gives the webhook three days."""

REPORTED: Final = 200
"""Unreadable attempts that are remembered, so that each is reported once."""

T = TypeVar("T")
Tell = Callable[[int, int], None]
"""Told, as the reading goes on, of how many attempts were read and how many deliveries stored."""

log = structlog.get_logger()


class Unknown(Exception):
    """It cannot be told which webhook is ours; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Ours:
    """What the settings say of our webhook.

    `said` is its id or its URL, or None where it can be found by its address; with `enable` it is
    enabled again where Whop gave it up.
    """

    said: str | None = None
    enable: bool = False


class Mark(msgspec.Struct, frozen=True):
    """Up to when nothing of a webhook's log is missing, and what of it could not be read."""

    webhook: str
    until: datetime
    unreadable: tuple[str, ...] = ()


class Health(msgspec.Struct, frozen=True):
    """How a webhook fares: Whop's own words, and when we asked."""

    webhook: str
    enabled: bool
    failures: int
    failing_since: datetime | None
    disabled_at: datetime | None
    asked: datetime


@dataclass(slots=True)
class Found:
    """What a catch-up found: attempts that were read, and of those that are lost, what became.

    `stored` are new to us; `known` had come in another way; `waiting` may yet be delivered;
    `ignored` are none of our business; `unreadable` are the ids of attempts that say nothing.
    """

    webhook: str
    since: datetime
    attempts: int = 0
    stored: int = 0
    known: int = 0
    waiting: int = 0
    ignored: int = 0
    unreadable: list[str] = field(default_factory=list)


class CatchUp:
    """Reads Whop's log of our webhook, and looks after the webhook itself."""

    def __init__(
        self, inbox: Inbox, whop: Whop, *, account: str, ours: Ours, clock: Callable[[], datetime]
    ) -> None:
        self._inbox = inbox
        self._redis: Redis = inbox.redis
        self._whop = whop
        self._account = account
        self._ours = ours
        self._clock = clock
        self._silenced: set[str] = set()

    async def run(self, *, since: datetime | None = None, tell: Tell | None = None) -> Found | None:
        """Look after the webhook, and take in what never arrived since the mark, or since T.

        The mark moves when all of it is stored. None where there is no telling which webhook is
        ours, or the key may not see it: that is said once.

        Raises:
            Unavailable: Whop did not tell all; what it told is stored.
            InboxUnavailable: Redis did not take it; the next time does it again.
        """
        try:
            hook = await self._look_after(await self._webhook())
        except Unknown as why:
            self._say_once("webhook.unknown", str(why), "set WHOP_WEBHOOK to its id (hook_...)")
            return None
        except Forbidden as error:
            self._say_once("webhook.unseen", str(error), "give the key developer:manage_webhook")
            return None
        return await self._read(hook, since, tell or _nobody)

    async def health(self) -> Health | None:
        """Return how our webhook fared when Whop was asked last; None if nobody could ask yet."""
        return await self._load("webhook", Health)

    # --- which webhook, and how it fares

    async def _webhook(self) -> Webhook:
        said = self._ours.said
        if said and said.startswith("hook_"):
            try:
                return await self._whop.webhook(said)
            except Missing as error:
                raise Unknown(f"WHOP_WEBHOOK names one that Whop does not know: {error}") from error
        return ours(await self._whop.webhooks(), said)

    async def _look_after(self, hook: Webhook) -> Webhook:
        """Say how the webhook fares; enable it where Whop gave it up and the settings allow."""
        if hook.enabled and hook.failures >= FAILING:
            log.error(
                "webhook.failing",
                webhook=hook.id,
                failures=hook.failures,
                since=str(hook.failing_since),
                next="see that the receiver answers at the webhook's URL, with its secret; "
                "after three days Whop disables it",
            )
        if hook.disabled_at and not hook.enabled and self._ours.enable:
            hook = await self._enabled(hook)
        if not hook.enabled:
            log.error(
                "webhook.disabled",
                webhook=hook.id,
                since=str(hook.disabled_at),
                why=hook.disabled_reason or "the seller disabled it",
                next="mend the receiver, enable the webhook at Whop, then run usher verify",
            )
        health = Health(
            webhook=hook.id,
            enabled=hook.enabled,
            failures=hook.failures,
            failing_since=hook.failing_since,
            disabled_at=hook.disabled_at,
            asked=self._clock(),
        )
        await self._save("webhook", health)
        return hook

    async def _enabled(self, hook: Webhook) -> Webhook:
        """Enable a webhook that Whop gave up; what the seller disabled is the seller's."""
        try:
            hook = await self._whop.enable_webhook(hook.id)
        except Rejected as error:
            log.warning("webhook.refused", webhook=hook.id, why=str(error))
        else:
            why = "what Whop did not try to deliver meanwhile is in no log"
            log.warning("webhook.enabled", webhook=hook.id, why=why, next="run usher verify")
        return hook

    def _say_once(self, what: str, why: str, next_: str) -> None:
        if what not in self._silenced:
            self._silenced.add(what)
            log.warning(what, why=why, next=f"{next_}; until then only usher verify finds gaps")

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
        sent = found.since
        async for attempt in self._whop.attempts(found.webhook):
            sent = attempt.sent_at or sent
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
        """Put what is lost through the door, the oldest first."""
        found.waiting = reading.waiting
        for message in reading.lost():
            if not self._concerns_us(message):
                found.ignored += 1
                continue
            received = int(self._clock().timestamp() * 1000)
            new = await self._inbox.put(msgspec.structs.replace(message, received=received))
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


def ours(hooks: Sequence[Webhook], said: str | None) -> Webhook:
    """Return the webhook with the URL that was said, or else the one that ends in our address.

    Raises:
        Unknown: there is none, or more than one.
    """
    fits = [h for h in hooks if (h.url == said if said else _path(h.url).endswith(DOOR))]
    if len(fits) == 1:
        return fits[0]
    if said:
        raise Unknown(f"the account has {len(fits)} webhooks with the URL of WHOP_WEBHOOK")
    ids = ", ".join(sorted(h.id for h in fits)) or "none"
    raise Unknown(f"of the account's {len(hooks)} webhooks, these end in {DOOR}: {ids}")


def _path(url: str) -> str:
    try:
        return urlsplit(url).path.rstrip("/")
    except ValueError:
        return ""


def opened(attempt: Attempt, now: int) -> Delivery | Message:
    """Read what an attempt carried, whether Whop logged it as an object or as a text.

    Raises:
        Malformed: it is neither, or not a delivery.
    """
    body = attempt.body
    return read(body.encode() if isinstance(body, str) else msgspec.json.encode(body), received=now)


def _nobody(_: int, __: int) -> None:
    """Be told, and say nothing."""
