"""Whop's objects, as far as Usher reads them, from either of Whop's response shapes.

Objects name others flat (`product_id`) or nested (`product.id`), as the API date and the endpoint
have it; the readers take both. Instants are aware and in UTC.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from webhooks.events import moment, reference, table, text
from worker.whop.errors import UnexpectedShape


class Row(dict[str, Any]):
    """An object of an answer, which knows of which operation it is."""

    def __init__(
        self, values: Mapping[str, Any], operation: str = "", *, of: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(values)
        self.operation: str = of.operation if isinstance(of, Row) else operation


NOTHING: Final = type(None)
SETTINGS: Final[Mapping[str, tuple[type, ...]]] = {
    "who_can_post": (str, NOTHING),
    "who_can_react": (str, NOTHING),
    "user_posts_cooldown_seconds": (int, NOTHING),
    "ban_media": (bool, NOTHING),
    "ban_urls": (bool, NOTHING),
    "banned_words": (list, NOTHING),
}
"""A channel's settings, and what each may be."""


@dataclass(frozen=True, slots=True)
class Membership:
    """One purchase, or one grant, of one user.

    `canceled_at` is when it was cancelled, or its cancellation was asked for; `metadata` is what
    sellers and programs wrote on it.
    """

    id: str
    status: str
    user: str | None
    product: str | None
    plan: str | None
    created_at: datetime | None
    updated_at: datetime | None
    period_end: datetime | None
    period_start: datetime | None = None
    canceled_at: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "Membership":
        """Read a membership from an answer."""
        return cls(
            id=required(data, "id"),
            status=required(data, "status"),
            user=reference(data, "user"),
            product=reference(data, "product"),
            plan=reference(data, "plan"),
            created_at=moment(text(data, "created_at")),
            updated_at=moment(text(data, "updated_at")),
            period_end=moment(
                text(data, "expires_at")
                or text(data, "current_period_end")
                or text(data, "renewal_period_end")
            ),
            period_start=moment(
                text(data, "current_period_start") or text(data, "renewal_period_start")
            ),
            canceled_at=moment(text(data, "canceled_at")),
            metadata=table(data, "metadata"),
        )


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment, for the state that a refund or a dispute left it in.

    `substatus` is Whop's finer word: succeeded, refunded, partially_refunded, dispute_lost, ...
    """

    id: str
    substatus: str | None
    created_at: datetime | None
    membership: str | None
    user: str | None
    product: str | None
    plan: str | None
    updated_at: datetime | None = None

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "Payment":
        """Read a payment from an answer."""
        return cls(
            id=required(data, "id"),
            substatus=text(data, "substatus"),
            created_at=moment(text(data, "created_at")),
            membership=reference(data, "membership"),
            user=reference(data, "user"),
            product=reference(data, "product"),
            plan=reference(data, "plan"),
            updated_at=moment(text(data, "updated_at")),
        )


@dataclass(frozen=True, slots=True)
class Product:
    """A product; `metadata` may carry the key of the room that it was made for."""

    id: str
    metadata: Mapping[str, Any]

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "Product":
        """Read a product from an answer."""
        return cls(required(data, "id"), table(data, "metadata"))


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan of a product (Whop's newer word is variant; the ids are the same).

    `stock` is what is left of it; None where it is unlimited or not told. `link` is where it is
    bought (Whop: `purchase_url`).
    """

    id: str
    free: bool
    stock: int | None = None
    created_at: datetime | None = None
    link: str | None = None

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "Plan":
        """Read a plan from an answer."""
        prices = (data.get("initial_price"), data.get("renewal_price"))
        left = None if data.get("unlimited_stock") else data.get("stock")
        stock = left if isinstance(left, int) else None
        free = not any(_amount(data, price) for price in prices)
        made, link = moment(text(data, "created_at")), text(data, "purchase_url")
        return cls(required(data, "id"), free, stock, made, link)


@dataclass(frozen=True, slots=True)
class Experience:
    """A Chat experience; `products` is None where the answer (a list's) does not tell them."""

    id: str
    name: str
    products: frozenset[str] | None

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "Experience":
        """Read an experience from an answer."""
        products = data.get("products")
        attached = None
        if isinstance(products, list):
            rows = [row if isinstance(row, dict) else {} for row in products]
            attached = frozenset(required(Row(row, of=data), "id") for row in rows)
        return cls(required(data, "id"), required(data, "name"), attached)


@dataclass(frozen=True, slots=True)
class Channel:
    """The chat channel behind an experience, with its settings by Whop's names."""

    id: str
    settings: Mapping[str, Any]

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "Channel":
        """Read a channel from an answer."""
        for name, kinds in SETTINGS.items():
            if not isinstance(data.get(name), kinds):
                raise wrong(data, name, f"is {type(data.get(name)).__name__}")
        if not all(isinstance(word, str) for word in data.get("banned_words") or ()):
            raise wrong(data, "banned_words", "has other things than words in it")
        return cls(required(data, "id"), data)


@dataclass(frozen=True, slots=True)
class Message:
    """A message in a channel."""

    id: str
    content: str
    created_at: datetime | None

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "Message":
        """Read a message from an answer."""
        content = text(data, "content") or ""
        return cls(required(data, "id"), content, moment(text(data, "created_at")))


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook of the account, and how its deliveries fare.

    `failures` counts deliveries in a row whose first attempt failed. `disabled_at` is set where
    Whop disabled it, and not where the seller did.
    """

    id: str
    url: str
    enabled: bool
    failures: int
    failing_since: datetime | None
    disabled_at: datetime | None
    disabled_reason: str | None

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "Webhook":
        """Read a webhook from an answer."""
        failures = data.get("consecutive_failures")
        return cls(
            id=required(data, "id"),
            url=text(data, "url") or "",
            enabled=data.get("enabled") is not False,
            failures=failures if isinstance(failures, int) else 0,
            failing_since=moment(text(data, "failing_since")),
            disabled_at=moment(text(data, "disabled_at")),
            disabled_reason=text(data, "disabled_reason"),
        )


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to deliver something to a webhook; `body` is what was sent, as Whop logged it."""

    id: str
    sent_at: datetime | None
    success: bool
    body: Any

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "Attempt":
        """Read an attempt from an answer."""
        return cls(
            id=text(data, "id") or "(without an id)",
            sent_at=moment(text(data, "sent_at")),
            success=data.get("success") is True,
            body=data.get("request_body"),
        )


def _amount(data: Mapping[str, Any], price: Any) -> float:
    """Return a price, which is a number in one shape and a table with `amount` in the other."""
    amount = price.get("amount") if isinstance(price, dict) else price
    try:
        return float(amount or 0)
    except (ValueError, TypeError):
        raise wrong(data, "price", "is no amount") from None


def required(data: Mapping[str, Any], key: str) -> str:
    """Return a string that every such answer has.

    Raises:
        UnexpectedShape: it is not there.
    """
    value = text(data, key)
    if value is None:
        has = f"is {type(data[key]).__name__}" if key in data else "is missing"
        raise wrong(data, key, f"{has}; there are {sorted(map(str, data))[:20]}")
    return value


def wrong(data: Mapping[str, Any], field: str, how: str) -> UnexpectedShape:
    """Return the error of an answer of which a field is missing or wrong."""
    operation = data.operation if isinstance(data, Row) else "an answer"
    return UnexpectedShape(operation, f"an answer whose {field!r} {how}", field)
