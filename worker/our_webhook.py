"""Our webhook at Whop: which it is, how it fares, and what to do when Whop gives it up.

Redis has, under `usher:{account}:`:

    webhook             Health: how the webhook fares, as Whop told us last
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import structlog
from redis.asyncio import Redis

from worker.policy.webhook import nears_its_end, turned_off
from worker.whop.client import Whop
from worker.whop.errors import Forbidden, Missing, Rejected
from worker.whop.transport import UNKNOWN_KEY
from worker.whop.types import Webhook

DOOR: Final = "/webhooks/whop"
"""How the address of the receiver ends."""

FAILING: Final = 3
"""Deliveries in a row whose failure is worth a loud word."""

MEND: Final = (
    "see that the receiver answers at the webhook's URL, with its secret: a 2xx within 5 seconds, "
    "and no redirect"
)

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


class Health(msgspec.Struct, frozen=True):
    """How a webhook fares: Whop's own words, and when we asked."""

    webhook: str
    enabled: bool
    failures: int
    failing_since: datetime | None
    disabled_at: datetime | None
    asked: datetime


class OurWebhook:
    """Finds our webhook, and looks after it."""

    def __init__(
        self, redis: Redis, prefix: str, whop: Whop, *, ours: Ours, clock: Callable[[], datetime]
    ) -> None:
        self._redis = redis
        self._key = f"{prefix}webhook"
        self._whop = whop
        self._ours = ours
        self._clock = clock
        self._silenced: set[str] = set()

    async def look_after(self) -> Webhook | None:
        """Return our webhook, having said how it fares, and enabled it where that is wanted.

        None where there is no telling which it is, or the key may not see it: that is said once.
        """
        try:
            hook = await self._find()
        except Unknown as why:
            self._say_once("webhook.unknown", str(why), "set WHOP_WEBHOOK to its id (hook_...)")
            await self._redis.delete(self._key)  # what was known of one that is gone says nothing
            return None
        except Forbidden as error:
            next_ = "give the key developer:manage_webhook"
            if error.status == UNKNOWN_KEY:
                next_ = "put a valid key into WHOP_API_KEY"
            self._say_once("webhook.unseen", str(error), next_)
            return None
        if hook.disabled_at and not hook.enabled and self._ours.enable:
            hook = await self._enabled(hook)
        self._say(hook)
        await self._keep(hook)
        return hook

    async def health(self) -> Health | None:
        """Return how our webhook fared when Whop was asked last; None if nobody could ask yet."""
        record: Any = await self._redis.get(self._key)
        return None if record is None else msgspec.json.decode(record, type=Health)

    async def _keep(self, hook: Webhook) -> None:
        health = Health(
            webhook=hook.id,
            enabled=hook.enabled,
            failures=hook.failures,
            failing_since=hook.failing_since,
            disabled_at=hook.disabled_at,
            asked=self._clock(),
        )
        await self._redis.set(self._key, msgspec.json.encode(health))

    async def _find(self) -> Webhook:
        said = self._ours.said
        if said and said.startswith("hook_"):
            try:
                return await self._whop.webhook(said)
            except Missing as error:
                raise Unknown(f"WHOP_WEBHOOK names one that Whop does not know: {error}") from error
        return ours(await self._whop.webhooks(), said)

    def _say(self, hook: Webhook) -> None:
        """Say loudly what is wrong with it."""
        if not hook.enabled:
            log.error(
                "webhook.disabled",
                webhook=hook.id,
                since=str(hook.disabled_at),
                why=hook.disabled_reason or "the seller disabled it",
                next="mend the receiver, enable the webhook at Whop, then run usher verify",
            )
        elif hook.failures >= FAILING:
            log.error(
                "webhook.failing",
                webhook=hook.id,
                failures=hook.failures,
                since=str(hook.failing_since),
                next=MEND,
            )
        if hook.enabled and (end := nears_its_end(hook.failing_since, self._clock())):
            log.error(
                "webhook.endangered",
                webhook=hook.id,
                failures=hook.failures,
                since=str(hook.failing_since),
                why=f"Whop turns it off {turned_off(end, hook.failures, self._clock())}; "
                "what happens after that it delivers to nobody",
                next=MEND,
            )

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
