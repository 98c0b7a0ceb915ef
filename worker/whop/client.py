"""Whop's API as far as Usher uses it: one method a call, thin on `worker.whop.transport`.

A POST carries an `Idempotency-Key` that the caller derives from what is being done, so that a
repetition is answered from Whop's memory and not done twice.
"""

import asyncio
import copy
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import httpx
import structlog

from webhooks.events import reference
from worker.whop.errors import UnexpectedShape
from worker.whop.permissions import TO_CUSTOMERS
from worker.whop.quota import Quota, Rank
from worker.whop.transport import PAGE, Listener, Transport, rows
from worker.whop.types import (
    Attempt,
    Channel,
    Experience,
    Membership,
    Message,
    Payment,
    Plan,
    Product,
    Row,
    Webhook,
    required,
)

T = TypeVar("T")

log = structlog.get_logger()

CREATE_MEMBERSHIP_DATE: Final = "2026-06-09"
"""The one date at which POST /memberships is documented (Whop: Create membership)."""

CHAT_APP: Final = "app_xml5hbizmZPgUT"
"""Whop's built-in Chat app, the same on production and sandbox (whopio/whop-tutorials)."""

LIVING: Final = ("visible", "hidden")
MANY_OF_ONE: Final = 100
"""Pages of what one user may have."""

LONG: Final = 20_000
"""Pages of the lists that grow with the members, and of the log of deliveries: two million rows."""

ARCHIVED: Final = "archived"
"""What a product can be, by Whop's SDK (2.6.0, `ProductListItem.visibility`)."""


class Whop:
    """One account's side of Whop's API.

    Every method raises Unavailable or Rejected (see `worker.whop.errors`).
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        account: str,
        quota: Quota,
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        listener: Listener | None = None,
        guard: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._account = account
        self._wire = Transport(
            http,
            quota=quota,
            rng=rng,
            sleep=sleep,
            listener=listener,
            lacks=self._lacking,
            guard=guard,
        )
        self._unreadable: set[tuple[str, str | None]] = set()

    def at(self, rank: Rank) -> "Whop":
        """Return the same account's side, all of whose calls go at a rank but urgent ones."""
        other = copy.copy(self)
        other._wire = self._wire.at(rank)  # noqa: SLF001 - it is one of us
        return other

    async def _lacking(self, actions: Sequence[str]) -> list[str]:
        granted = await self.permitted(actions)
        return [action for action in actions if action not in granted]

    async def _readable(
        self, kind: Callable[[Row], T], path: str, query: Mapping[str, Any], **how: Any
    ) -> AsyncIterator[T]:
        """Yield what can be read of a list: one row that cannot does not stop the others.

        It is said once of each kind. For lists in which a row that is left out takes nothing from
        anybody.
        """
        async for row in self._wire.pages(path, query, **how):
            try:
                one = kind(row)
            except UnexpectedShape as odd:
                if (odd.operation, odd.field) not in self._unreadable:
                    self._unreadable.add((odd.operation, odd.field))
                    log.warning("whop.unreadable", why=str(odd), next="the row is left out")
            else:
                yield one

    # --- members and their memberships

    async def memberships(self, user: str) -> list[Membership]:
        """Return all memberships of a user, of every status: a filter would leave some out."""
        query = {"account_id": self._account, "user_id": user}
        found = self._readable(Membership.read, "memberships", query, most=MANY_OF_ONE)
        return [one async for one in found]

    async def memberships_of(self, products: Sequence[str]) -> AsyncIterator[Membership]:
        """Yield all memberships of some products, of every status."""
        query = {"account_id": self._account, "product_ids": list(products)}
        async for one in self._readable(Membership.read, "memberships", query, most=LONG):
            yield one

    async def memberships_since(self, at: datetime) -> AsyncIterator[Membership]:
        """Yield the account's memberships that were made since an instant, the newest first."""
        query = {"account_id": self._account, "created_after": at.isoformat()}
        async for one in self._readable(Membership.read, "memberships", query, most=LONG):
            yield one

    async def membership(self, id_: str) -> Membership:
        """Return one membership."""
        return Membership.read(await self._wire.get("memberships/{}", id_))

    async def payment(self, id_: str) -> Payment:
        """Return one payment."""
        return Payment.read(await self._wire.get("payments/{}", id_))

    async def payments(
        self, *, user: str | None = None, product: str | None = None
    ) -> AsyncIterator[Payment]:
        """Yield all payments of a user, or for a product."""
        query = {"account_id": self._account}
        query |= {"user_id": user} if user else {}
        query |= {"product_id": product} if product else {}
        async for one in self._readable(Payment.read, "payments", query, most=LONG):
            yield one

    async def admins(self) -> frozenset[str]:
        """Return the user ids of the account's team."""
        query = {"account_id": self._account, "access_level": "admin"}
        rows = [row async for row in self._wire.pages("members", query)]
        return frozenset(user for row in rows if (user := reference(row, "user")))

    async def create_membership(
        self, *, plan: str, user: str, key: str, metadata: Mapping[str, str]
    ) -> Membership:
        """Give a user a membership on a free plan. Whether Whop takes its metadata is unknown."""
        body = {"plan_id": plan, "user_id": user, "metadata": metadata}
        answer = await self._wire.post(
            "memberships", body, key=key, date=CREATE_MEMBERSHIP_DATE, tries=1
        )
        return Membership.read(answer)

    async def invite(self, *, plan: str, user: str, key: str) -> None:
        """Invite a user to a free plan: Whop writes to them, and they must accept."""
        await self._wire.post(
            "memberships/invite", {"plan_id": plan, "user_id": user}, key=key, tries=1
        )

    async def mark(self, membership: str, metadata: Mapping[str, str]) -> Membership:
        """Write metadata on a membership; what it has already stays."""
        body = {"metadata": metadata}
        return Membership.read(
            await self._wire.call("PATCH", "memberships/{}", membership, body=body)
        )

    async def cancel(self, membership: str, *, key: str) -> Membership:
        """End a membership at once. The mode is always sent: its default flipped between dates."""
        body = {"cancel_at_period_end": False}
        return Membership.read(
            await self._wire.post("memberships/{}/cancel", body, membership, key=key)
        )

    # --- products and plans

    async def products(self, *visibilities: str) -> AsyncIterator[Product]:
        """Yield the account's products of these visibilities, or all of them: archived ones last.

        Which a list leaves out that is not asked for any, Whop does not document.
        """
        for asked in [visibilities] if visibilities else [LIVING, (ARCHIVED,)]:
            query = {"account_id": self._account, "visibilities": list(asked)}
            async for row in self._wire.pages("products", query):
                yield Product.read(row)

    async def create_hidden_product(
        self, *, title: str, metadata: Mapping[str, str], key: str
    ) -> Product:
        """Make a product that nobody is shown and that greets nobody."""
        body = {
            "account_id": self._account,
            "title": title,
            "visibility": "hidden",
            "send_welcome_message": False,
            "metadata": metadata,
        }
        return Product.read(await self._wire.post("products", body, key=key, tries=1))

    async def plans(self, product: str) -> list[Plan]:
        """Return the plans of a product, archived ones too: those of an archived product may be."""
        query = {
            "account_id": self._account,
            "product_ids": [product],
            "visibilities": [*LIVING, ARCHIVED],
        }
        return [Plan.read(row) async for row in self._wire.pages("variants", query)]

    async def create_free_plan(self, *, product: str, key: str) -> Plan:
        """Make a plan that costs nothing and that only a direct link reaches."""
        body = {
            "account_id": self._account,
            "product_id": product,
            "plan_type": "one_time",
            "initial_price": 0,
            "renewal_price": 0,
            "visibility": "hidden",
            "release_method": "buy_now",
            "unlimited_stock": True,
        }
        return Plan.read(await self._wire.post("variants", body, key=key, tries=1))

    async def set_stock(self, plan: str, stock: int) -> Plan:
        """Set the stock of a plan: what is left of it, or all that is ever sold."""
        body = {"stock": stock, "unlimited_stock": False}
        return Plan.read(await self._wire.call("PATCH", "variants/{}", plan, body=body))

    # --- experiences, channels, messages

    async def chats(self, *, product: str | None = None) -> list[Experience]:
        """Return the account's Chat experiences, or those attached to a product."""
        query = {"account_id": self._account, "app_id": CHAT_APP}
        query |= {"product_id": product} if product else {}
        return [Experience.read(row) async for row in self._wire.pages("experiences", query)]

    async def experience(self, id_: str) -> Experience:
        """Return one experience, with the products that it is attached to."""
        return Experience.read(await self._wire.get("experiences/{}", id_))

    async def create_chat(self, *, name: str, key: str) -> Experience:
        """Make a Chat experience; its channel comes with it."""
        body = {"account_id": self._account, "app_id": CHAT_APP, "name": name}
        return Experience.read(await self._wire.post("experiences", body, key=key, tries=1))

    async def rename(self, experience: str, name: str) -> Experience:
        """Give an experience another name."""
        body = {"name": name}
        return Experience.read(
            await self._wire.call("PATCH", "experiences/{}", experience, body=body)
        )

    async def attach(self, experience: str, product: str, *, key: str) -> None:
        """Open an experience to a product's members."""
        await self._wire.post("experiences/{}/attach", {"product_id": product}, experience, key=key)

    async def detach(self, experience: str, product: str, *, key: str) -> None:
        """Close an experience to a product's members."""
        await self._wire.post("experiences/{}/detach", {"product_id": product}, experience, key=key)

    async def channels(self) -> AsyncIterator[Channel]:
        """Yield all channels of the account with their settings."""
        query = {"account_id": self._account}
        async for one in self._readable(Channel.read, "chat_channels", query):
            yield one

    async def channel(self, id_: str, *, rank: Rank = Rank.OTHER) -> Channel:
        """Return a channel, by its own id or its experience's."""
        return Channel.read(await self._wire.call("GET", "chat_channels/{}", id_, rank=rank))

    async def update_channel(
        self, id_: str, changes: Mapping[str, Any], *, rank: Rank = Rank.OTHER
    ) -> Channel:
        """Change the named settings of a channel and no others."""
        answer = await self._wire.call("PATCH", "chat_channels/{}", id_, body=changes, rank=rank)
        return Channel.read(answer)

    async def messages(self, channel: str) -> list[Message]:
        """Return a channel's latest messages, the newest first."""
        query = {"channel_id": channel, "direction": "desc", "first": PAGE}
        page = await self._wire.call("GET", "messages", query=query)
        return [Message.read(row) for row in rows("GET /messages", page)]

    async def messages_since(self, channel: str, since: datetime) -> AsyncIterator[Message]:
        """Yield a channel's messages back to an instant, the newest first."""
        query = {"channel_id": channel, "direction": "desc"}
        async for row in self._wire.pages("messages", query):
            message = Message.read(row)
            if message.created_at and message.created_at < since:
                return
            yield message

    async def post_message(self, channel: str, content: str, *, key: str) -> Message:
        """Write a message (Markdown) into a channel."""
        body = {"channel_id": channel, "content": content}
        return Message.read(await self._wire.post("messages", body, key=key, tries=1))

    async def support_chat(self, user: str, *, key: str) -> str:
        """Return the id of the support chat with a customer, which is opened if there is none."""
        body = {"account_id": self._account, "user_id": user}
        answer = await self._wire.post("support_channels", body, key=key, tries=1)
        return required(answer, "id")

    async def write_to_customer(self, chat: str, content: str, *, key: str) -> Message:
        """Write a message (Markdown) into a support chat; Whop may know no repetition of it."""
        body = {"channel_id": chat, "content": content}
        answer = await self._wire.post("messages", body, key=key, tries=1, needs=TO_CUSTOMERS)
        return Message.read(answer)

    async def pin_message(self, id_: str, *, pinned: bool) -> None:
        """Pin a message, or pin it no more."""
        await self._wire.call("PATCH", "messages/{}", id_, body={"is_pinned": pinned})

    # --- webhooks

    async def webhooks(self) -> list[Webhook]:
        """Return the account's webhooks, disabled ones too."""
        query = {"account_id": self._account}
        return [Webhook.read(row) async for row in self._wire.pages("webhooks", query)]

    async def webhook(self, id_: str) -> Webhook:
        """Return one webhook, with how its deliveries fare."""
        return Webhook.read(await self._wire.get("webhooks/{}", id_))

    async def enable_webhook(self, id_: str) -> Webhook:
        """Have Whop deliver to a webhook again; its streak of failures begins anew."""
        return Webhook.read(
            await self._wire.call("PATCH", "webhooks/{}", id_, body={"enabled": True})
        )

    async def attempts(self, webhook: str) -> AsyncIterator[Attempt]:
        """Yield what Whop tried to deliver to a webhook in the last 30 days, the newest first."""
        async for row in self._wire.pages("webhooks/{}/deliveries", {}, webhook, most=LONG):
            yield Attempt.read(row)

    # --- the key

    async def permitted(self, actions: Sequence[str]) -> frozenset[str]:
        """Return which of these permissions the key has on the account."""
        query = {"resource_id": self._account, "actions": ",".join(actions)}
        answer = await self._wire.call("GET", "permissions", query=query)
        found = rows("GET /permissions", answer)
        return frozenset(str(row.get("action")) for row in found if row.get("granted"))
