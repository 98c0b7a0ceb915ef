"""Whop's API as far as Usher uses it: one method a call, thin on httpx.

Every call carries `Api-Version-Date` (without it two keys of one account can get different
shapes), waits for the shared quota, has a timeout, and is tried again a bounded number of times.
A POST carries an `Idempotency-Key` that the caller derives from what is being done, so that a
repetition is answered from Whop's memory and not done twice.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol
from urllib.parse import quote

import httpx
import msgspec

from webhooks.events import reference, table
from worker.whop import answers
from worker.whop.errors import (
    Conflict,
    Forbidden,
    Limited,
    Missing,
    Rejected,
    Unavailable,
    WhopError,
)
from worker.whop.quota import Quota, Rank
from worker.whop.types import (
    Attempt,
    Channel,
    Experience,
    Membership,
    Message,
    Payment,
    Plan,
    Product,
    Webhook,
)

API_DATE: Final = "2026-10-15-1"
CREATE_MEMBERSHIP_DATE: Final = "2026-06-09"
"""The one date at which POST /memberships is documented (Whop: Create membership)."""

CHAT_APP: Final = "app_xml5hbizmZPgUT"
"""Whop's built-in Chat app, the same on production and sandbox (whopio/whop-tutorials)."""

TIMEOUT: Final = httpx.Timeout(20.0, connect=5.0)
TRIES: Final = 3
"""Tries of one call. A POST that makes something is tried once, for Whop may take no notice of our
key, and even a refusal may come after the effect: whoever repeats it must look first."""

DELAY: Final = re.compile(r"(\d{1,9}(?:\.\d+)?)", re.ASCII)
PATIENCE: Final = 30.0
"""Seconds that a call waits at the most when Whop names a delay; longer is the job's matter."""

PAGE: Final = 100
TOO_MANY: Final = 429
TRY_AGAIN: Final = frozenset({408, TOO_MANY})
NEEDS: Final = {
    "GET /memberships": "member:basic:read",
    "GET /memberships/{id}": "member:basic:read",
    "POST /memberships": "membership:create, member:email:read, member:basic:read",
    "POST /memberships/invite": "membership:create",
    "POST /memberships/{id}/cancel": "membership:cancel",
    "GET /members": "member:basic:read",
    "GET /payments": "payment:basic:read",
    "GET /payments/{id}": "payment:basic:read",
    "GET /products": "access_pass:basic:read",
    "POST /products": "access_pass:create",
    "GET /variants": "plan:basic:read",
    "POST /variants": "plan:create",
    "PATCH /variants/{id}": "plan:update",
    "POST /experiences": "experience:create",
    "PATCH /experiences/{id}": "experience:update",
    "POST /experiences/{id}/attach": "experience:attach",
    "POST /experiences/{id}/detach": "experience:detach",
    "GET /chat_channels": "chat:read",
    "GET /chat_channels/{id}": "chat:read",
    "PATCH /chat_channels/{id}": "chat:moderate",
    "GET /messages": "chat:read",
    "POST /messages": "chat:message:create",
    "PATCH /messages/{id}": "chat:message:create",
    "GET /webhooks": "developer:manage_webhook",
    "GET /webhooks/{id}": "developer:manage_webhook",
    "PATCH /webhooks/{id}": "developer:manage_webhook",
    "GET /webhooks/{id}/deliveries": "developer:manage_webhook",
}
"""The permissions that Whop documents for each call; what is not here has none documented."""

REFUSALS: Final = {401: Forbidden, 403: Forbidden, 404: Missing, 409: Conflict}


class Listener(Protocol):
    """Whoever wants to know how calls fare."""

    def waited(self, seconds: float, /) -> None:
        """Hear how long a call waited for the quota."""

    def called(self, *, answered: bool) -> None:
        """Hear of each try: a refusal is an answer, and so is a quota that is used up."""


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
    ) -> None:
        self._http = http
        self._account = account
        self._quota = quota
        self._rng = rng
        self._sleep = sleep
        self._listener = listener

    # --- members and their memberships

    async def memberships(self, user: str) -> list[Membership]:
        """Return all memberships of a user, of every status: a filter would leave some out."""
        query = {"account_id": self._account, "user_id": user}
        return [Membership.read(row) async for row in self._pages("memberships", query)]

    async def memberships_of(self, products: Sequence[str]) -> AsyncIterator[Membership]:
        """Yield all memberships of some products, of every status."""
        query = {"account_id": self._account, "product_ids": list(products)}
        async for row in self._pages("memberships", query):
            yield Membership.read(row)

    async def membership(self, id_: str) -> Membership:
        """Return one membership."""
        return Membership.read(await self._get("memberships/{}", id_))

    async def payment(self, id_: str) -> Payment:
        """Return one payment."""
        return Payment.read(await self._get("payments/{}", id_))

    async def payments(
        self, *, user: str | None = None, product: str | None = None
    ) -> AsyncIterator[Payment]:
        """Yield all payments of a user, or for a product."""
        query = {"account_id": self._account}
        query |= {"user_id": user} if user else {}
        query |= {"product_id": product} if product else {}
        async for row in self._pages("payments", query):
            yield Payment.read(row)

    async def admins(self) -> frozenset[str]:
        """Return the user ids of the account's team."""
        query = {"account_id": self._account, "access_level": "admin"}
        rows = [row async for row in self._pages("members", query)]
        return frozenset(user for row in rows if (user := reference(row, "user")))

    async def create_membership(self, *, plan: str, user: str, key: str) -> Membership:
        """Give a user a membership on a free plan."""
        body = {"plan_id": plan, "user_id": user}
        answer = await self._post(
            "memberships", body, key=key, date=CREATE_MEMBERSHIP_DATE, tries=1
        )
        return Membership.read(answer)

    async def invite(self, *, plan: str, user: str, key: str) -> None:
        """Invite a user to a free plan: Whop writes to them, and they must accept."""
        await self._post("memberships/invite", {"plan_id": plan, "user_id": user}, key=key, tries=1)

    async def cancel(self, membership: str, *, key: str) -> Membership:
        """End a membership at once. The mode is always sent: its default flipped between dates."""
        body = {"cancel_at_period_end": False}
        return Membership.read(await self._post("memberships/{}/cancel", body, membership, key=key))

    # --- products and plans

    async def products(self) -> AsyncIterator[Product]:
        """Yield the account's products, hidden ones too."""
        query = {"account_id": self._account, "visibilities": ["visible", "hidden"]}
        async for row in self._pages("products", query):
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
        return Product.read(await self._post("products", body, key=key, tries=1))

    async def plans(self, product: str) -> list[Plan]:
        """Return the plans of a product."""
        query = {"account_id": self._account, "product_ids": [product]}
        return [Plan.read(row) async for row in self._pages("variants", query)]

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
        return Plan.read(await self._post("variants", body, key=key, tries=1))

    async def set_stock(self, plan: str, stock: int) -> Plan:
        """Have Whop sell so many more of a plan: its stock lessens with each purchase."""
        body = {"stock": stock, "unlimited_stock": False}
        return Plan.read(await self._call("PATCH", "variants/{}", plan, body=body))

    # --- experiences, channels, messages

    async def chats(self, *, product: str | None = None) -> list[Experience]:
        """Return the account's Chat experiences, or those attached to a product."""
        query = {"account_id": self._account, "app_id": CHAT_APP}
        query |= {"product_id": product} if product else {}
        return [Experience.read(row) async for row in self._pages("experiences", query)]

    async def experience(self, id_: str) -> Experience:
        """Return one experience, with the products that it is attached to."""
        return Experience.read(await self._get("experiences/{}", id_))

    async def create_chat(self, *, name: str, key: str) -> Experience:
        """Make a Chat experience; its channel comes with it."""
        body = {"account_id": self._account, "app_id": CHAT_APP, "name": name}
        return Experience.read(await self._post("experiences", body, key=key, tries=1))

    async def rename(self, experience: str, name: str) -> Experience:
        """Give an experience another name."""
        body = {"name": name}
        return Experience.read(await self._call("PATCH", "experiences/{}", experience, body=body))

    async def attach(self, experience: str, product: str, *, key: str) -> None:
        """Open an experience to a product's members."""
        await self._post("experiences/{}/attach", {"product_id": product}, experience, key=key)

    async def detach(self, experience: str, product: str, *, key: str) -> None:
        """Close an experience to a product's members."""
        await self._post("experiences/{}/detach", {"product_id": product}, experience, key=key)

    async def channels(self) -> AsyncIterator[Channel]:
        """Yield all channels of the account with their settings."""
        async for row in self._pages("chat_channels", {"account_id": self._account}):
            yield Channel.read(row)

    async def channel(self, id_: str, *, rank: Rank = Rank.OTHER) -> Channel:
        """Return a channel, by its own id or its experience's."""
        return Channel.read(await self._call("GET", "chat_channels/{}", id_, rank=rank))

    async def update_channel(
        self, id_: str, changes: Mapping[str, Any], *, rank: Rank = Rank.OTHER
    ) -> Channel:
        """Change the named settings of a channel and no others."""
        answer = await self._call("PATCH", "chat_channels/{}", id_, body=changes, rank=rank)
        return Channel.read(answer)

    async def messages(self, channel: str) -> list[Message]:
        """Return a channel's latest messages, the newest first."""
        query = {"channel_id": channel, "direction": "desc", "first": PAGE}
        page = await self._call("GET", "messages", query=query)
        return [Message.read(row) for row in _rows("GET /messages", page)]

    async def messages_since(self, channel: str, since: datetime) -> AsyncIterator[Message]:
        """Yield a channel's messages back to an instant, the newest first."""
        query = {"channel_id": channel, "direction": "desc"}
        async for row in self._pages("messages", query):
            message = Message.read(row)
            if message.created_at and message.created_at < since:
                return
            yield message

    async def post_message(self, channel: str, content: str, *, key: str) -> Message:
        """Write a message (Markdown) into a channel."""
        body = {"channel_id": channel, "content": content}
        return Message.read(await self._post("messages", body, key=key, tries=1))

    async def pin_message(self, id_: str, *, pinned: bool) -> None:
        """Pin a message, or pin it no more."""
        await self._call("PATCH", "messages/{}", id_, body={"is_pinned": pinned})

    # --- webhooks

    async def webhooks(self) -> list[Webhook]:
        """Return the account's webhooks, disabled ones too."""
        query = {"account_id": self._account}
        return [Webhook.read(row) async for row in self._pages("webhooks", query)]

    async def webhook(self, id_: str) -> Webhook:
        """Return one webhook, with how its deliveries fare."""
        return Webhook.read(await self._get("webhooks/{}", id_))

    async def enable_webhook(self, id_: str) -> Webhook:
        """Have Whop deliver to a webhook again; its streak of failures begins anew."""
        return Webhook.read(await self._call("PATCH", "webhooks/{}", id_, body={"enabled": True}))

    async def attempts(self, webhook: str) -> AsyncIterator[Attempt]:
        """Yield what Whop tried to deliver to a webhook in the last 30 days, the newest first."""
        async for row in self._pages("webhooks/{}/deliveries", {}, webhook):
            yield Attempt.read(row)

    # --- the key

    async def permitted(self, actions: Sequence[str]) -> frozenset[str]:
        """Return which of these permissions the key has on the account."""
        query = {"resource_id": self._account, "actions": ",".join(actions)}
        answer = await self._call("GET", "permissions", query=query)
        rows = _rows("GET /permissions", answer)
        return frozenset(str(row.get("action")) for row in rows if row.get("granted"))

    # --- the wire

    async def _pages(
        self, path: str, query: Mapping[str, Any], id_: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        after: dict[str, str] = {}
        while True:
            page = await self._call("GET", path, id_, query={**query, "first": PAGE, **after})
            for row in _rows(f"GET /{path.format('{id}')}", page):
                yield row
            info = table(page, "page_info")
            if not (info.get("has_next_page") and info.get("end_cursor")):
                return
            after = {"after": info["end_cursor"]}

    async def _get(self, path: str, id_: str) -> dict[str, Any]:
        return await self._call("GET", path, id_)

    async def _post(
        self, path: str, body: Mapping[str, Any], id_: str = "", *, key: str, **how: Any
    ) -> dict[str, Any]:
        return await self._call("POST", path, id_, body=body, key=key, **how)

    async def _call(
        self,
        method: str,
        path: str,
        id_: str = "",
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
        date: str = API_DATE,
        tries: int = TRIES,
        rank: Rank = Rank.OTHER,
    ) -> dict[str, Any]:
        operation = f"{method} /{path.format('{id}')}"
        headers = {"Api-Version-Date": date} | ({"Idempotency-Key": key} if key else {})
        request = self._http.build_request(
            method,
            path.format(quote(id_, safe="")),
            params=query,
            headers=headers,
            json=body,
            timeout=TIMEOUT,
        )
        for attempt in range(tries):
            await self._turn(operation, rank)
            try:
                answer = await self._once(operation, request)
            except WhopError as error:
                self._tell(answered=isinstance(error, Rejected | Limited))
                if not isinstance(error, Unavailable):
                    raise
                delay = (1 + error.after) if error.after else 0.2 * 2**attempt
                if attempt == tries - 1 or delay > PATIENCE:
                    raise
                await self._sleep(delay * self._rng.uniform(0.8, 1.2))
            else:
                self._tell(answered=True)
                return answer
        raise AssertionError("the last try returns or raises")

    async def _turn(self, operation: str, rank: Rank) -> None:
        began = asyncio.get_running_loop().time()
        await self._quota.wait(operation, rank)
        if self._listener:
            self._listener.waited(asyncio.get_running_loop().time() - began)

    def _tell(self, *, answered: bool) -> None:
        if self._listener:
            self._listener.called(answered=answered)

    async def _once(self, operation: str, request: httpx.Request) -> dict[str, Any]:
        try:
            response = await self._http.send(request)
        except httpx.HTTPError as error:
            raise Unavailable(operation, f"{type(error).__name__} {error}".strip()) from error
        answers.note(operation, response)
        if response.is_success:
            return _object(operation, response)
        message = _message(response)
        if response.status_code in TRY_AGAIN or response.is_server_error:
            wait = _wait(response, message)
            kind = Limited if response.status_code == TOO_MANY else Unavailable
            raise kind(operation, f"{response.status_code} {message}", wait)
        refusal = REFUSALS.get(response.status_code, Rejected)
        if refusal is Forbidden and operation in NEEDS:
            message = f"{message} (the key needs {NEEDS[operation]})"
        raise refusal(operation, f"{response.status_code} {message}", response.status_code)


def _object(operation: str, response: httpx.Response) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable(operation, f"an answer that is not JSON: {error}") from error
    return answer if isinstance(answer, dict) else {"value": answer}


def _rows(operation: str, page: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a page; an answer without any is none, whatever its status says."""
    rows = page.get("data")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Unavailable(operation, f"an answer without rows; it has {sorted(page)[:20]}")
    return rows


def _message(response: httpx.Response) -> str:
    """Return Whop's own words for an error, whatever shape they come in, and not too many."""
    try:
        body = msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        words = response.text
    else:
        error = body.get("error", body) if isinstance(body, dict) else body
        words = str(error.get("message", error) if isinstance(error, dict) else error)
    return re.sub(r"\S+@\S+", "(an e-mail address)", words[:2000])[:300]


def _wait(response: httpx.Response, message: str) -> float | None:
    """Read how long Whop wants us to wait, in seconds: `Retry-After`, or else its own words.

    A date is measured against the answer's own `Date`, not against our clock. The documents put
    the delay of a 429 into the message (Whop: Troubleshooting).
    """
    header = response.headers.get("Retry-After", "")
    if DELAY.fullmatch(header):
        return float(header)
    try:
        dates = [parsedate_to_datetime(d) for d in (header, response.headers.get("Date", ""))]
        return max(0.0, (dates[0] - dates[1]).total_seconds())
    except (ValueError, TypeError):  # no date, or one of the two without a zone
        if response.status_code != TOO_MANY:
            return None
        said = re.search(DELAY.pattern + " ?s", message, re.ASCII)
        return float(said[1]) if said else None
