"""What the local Whop remembers: one struct for each of Whop's objects, with Whop's names.

`seq` is the order of creation; lists and their cursors go by it.
"""

from datetime import datetime
from typing import Any

import msgspec

CHAT_APP = "app_xml5hbizmZPgUT"
"""Whop's built-in Chat app; the same id in production and in Whop's own sandbox."""

ENTITLING = frozenset({"trialing", "active", "past_due", "completed", "canceling"})
"""Statuses that open the product (Whop: Membership.status): `completed` keeps access."""

ENDED = frozenset({"canceled", "expired"})


class Record(msgspec.Struct, kw_only=True):
    """One object of the account."""

    id: str
    seq: int
    created_at: datetime
    updated_at: datetime


class Account(msgspec.Struct, kw_only=True):
    """The seller: the one account that a local Whop serves."""

    id: str
    title: str
    route: str
    owner_id: str


class Key(msgspec.Struct, kw_only=True):
    """An account API key; `permissions` None means: all of them."""

    secret: str
    permissions: frozenset[str] | None = None

    def may(self, action: str) -> bool:
        """Say whether the key is granted this permission action."""
        return self.permissions is None or action in self.permissions


class User(Record, kw_only=True):
    """A person on Whop, known by a username."""

    username: str
    name: str
    email: str


class Member(Record, kw_only=True):
    """One person's relation with the account, however many memberships they hold."""

    user_id: str


class Product(Record, kw_only=True):
    """What is sold; memberships grant access to it."""

    title: str
    route: str
    visibility: str = "visible"
    headline: str | None = None
    description: str | None = None
    labels: list[str] = []
    metadata: dict[str, Any] = {}
    send_welcome_message: bool = True


class Plan(Record, kw_only=True):
    """How a product is sold; since 2026 Whop also says variant, with the same `plan_` id."""

    product_id: str
    plan_type: str = "one_time"
    initial_price: float = 0.0
    renewal_price: float = 0.0
    currency: str = "usd"
    billing_period: int | None = None
    expiration_days: int | None = None
    trial_period_days: int | None = None
    visibility: str = "visible"
    release_method: str = "buy_now"
    unlimited_stock: bool = True
    stock: int | None = None
    title: str | None = None
    description: str | None = None
    internal_notes: str | None = None
    metadata: dict[str, Any] = {}
    deleted: bool = False

    @property
    def free(self) -> bool:
        """Say whether neither the first nor a later charge costs anything."""
        return self.initial_price == 0 and self.renewal_price == 0


class Experience(Record, kw_only=True):
    """A room, course or app that products open; `product_ids` are those it is attached to."""

    app_id: str
    name: str
    is_public: bool = False
    order: str | None = None
    product_ids: list[str] = []


class Channel(Record, kw_only=True):
    """The chat behind a Chat experience, with Whop's names for its settings."""

    experience_id: str
    ban_media: bool = False
    ban_urls: bool = False
    banned_words: list[str] = []
    user_posts_cooldown_seconds: int | None = None
    who_can_post: str = "everyone"
    who_can_react: str = "everyone"


class Message(Record, kw_only=True):
    """A message in a channel."""

    channel_id: str
    user_id: str
    content: str
    is_pinned: bool = False
    is_edited: bool = False
    replying_to_message_id: str | None = None


class Membership(Record, kw_only=True):
    """A person's hold on a product; `billing` is its state but for a coming cancellation."""

    user_id: str | None
    member_id: str | None
    plan_id: str
    product_id: str
    billing: str
    period_start: datetime
    period_end: datetime | None = None
    expires_at: datetime | None = None
    cancel_at_period_end: bool = False
    canceled_at: datetime | None = None
    cancellation_reason: str | None = None
    paused: bool = False
    metadata: dict[str, Any] = {}

    @property
    def status(self) -> str:
        """Whop's status: `canceling` while a cancellation waits for the period's end."""
        waits = self.cancel_at_period_end and self.billing in ("active", "trialing", "past_due")
        return "canceling" if waits else self.billing

    @property
    def entitled(self) -> bool:
        """Say whether this membership opens its product."""
        return self.status in ENTITLING

    @property
    def ended(self) -> bool:
        """Say whether it was canceled or has expired."""
        return self.billing in ENDED


class Payment(Record, kw_only=True):
    """A charge for a membership."""

    membership_id: str
    member_id: str | None
    user_id: str | None
    plan_id: str
    product_id: str
    amount: float
    currency: str
    billing_reason: str
    status: str = "paid"
    substatus: str = "succeeded"
    paid_at: datetime | None = None
    refunded_at: datetime | None = None
    refunded_amount: float = 0.0
    failure_message: str | None = None


class Refund(Record, kw_only=True):
    """Money given back for a payment."""

    payment_id: str
    amount: float
    currency: str
    status: str = "succeeded"


class Dispute(Record, kw_only=True):
    """A chargeback of a payment."""

    payment_id: str
    amount: float
    currency: str
    status: str = "needs_response"
    reason: str = "fraudulent"


class Invitation(Record, kw_only=True):
    """An invitation to a free plan, bound to one recipient until they accept it."""

    plan_id: str
    user_id: str | None
    email: str | None
    accepted_at: datetime | None = None


class SupportChannel(Record, kw_only=True):
    """The support chat between the account's team and one customer."""

    user_id: str
    custom_name: str | None = None


class Webhook(Record, kw_only=True):
    """An endpoint of the seller's; `api_version_date` None means the legacy payload shape."""

    url: str
    secret: str
    events: list[str]
    api_version_date: str | None = None
    enabled: bool = True
    child_resource_events: bool = False
    consecutive_failures: int = 0
    failing_since: datetime | None = None
    last_failure_at: datetime | None = None
    disabled_at: datetime | None = None


class Outgoing(msgspec.Struct, kw_only=True):
    """One message on its way to one webhook; the body is as it was when the thing happened."""

    seq: int
    webhook_id: str
    message_id: str
    event: str
    resource_id: str
    body: msgspec.Raw
    due: datetime
    attempt: int = 0
    replayed_from: str | None = None


class Delivery(msgspec.Struct, kw_only=True):
    """One attempt, as the delivery log shows it; `response_code` 0 means: no answer came."""

    id: str
    seq: int
    webhook_id: str
    message_id: str
    event: str
    resource_id: str
    request_body: msgspec.Raw
    response_body: msgspec.Raw
    response_code: int
    sent_at: datetime
    success: bool
    total_time: float
    replayed_from: str | None
