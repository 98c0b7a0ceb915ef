"""The bodies of requests, as far as the local Whop reads them.

Unknown keys are dropped in silence, as Whop does; a missing or wrong field is told by name. In a
PATCH only the fields that were sent change anything: the others stay `UNSET`.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Text = Annotated[str, Meta(min_length=1)]
Title = Annotated[str, Meta(min_length=1, max_length=80)]
PlanTitle = Annotated[str, Meta(max_length=30)]
Headline = Annotated[str, Meta(max_length=80)]
Description = Annotated[str, Meta(max_length=1500)]
Name = Annotated[str, Meta(min_length=1, max_length=255)]
Labels = Annotated[list[str], Meta(max_length=20)]
Days = Annotated[int, Meta(ge=1)]
Price = Annotated[float, Meta(ge=0)]
Metadata = Annotated[dict[str, Any], Meta(max_length=50)]
ProductVisibility = Literal["visible", "hidden", "archived", "quick_link"]
Visibility = Literal["visible", "hidden", "archived", "quick_link"]
WhoCanPost = Literal["everyone", "admins"]
WhoCanReact = Literal["everyone", "no_one"]


class NewProduct(msgspec.Struct, kw_only=True):
    """POST /products."""

    title: Title
    account_id: str | None = None
    headline: Headline | None = None
    description: Description | None = None
    visibility: ProductVisibility = "visible"
    labels: Labels = []
    metadata: Metadata = {}
    route: str | None = None
    send_welcome_message: bool = True


class ProductPatch(msgspec.Struct, kw_only=True):
    """PATCH /products/{id}."""

    title: Title | UnsetType = UNSET
    headline: Headline | UnsetType | None = UNSET
    description: Description | UnsetType | None = UNSET
    visibility: ProductVisibility | UnsetType = UNSET
    labels: Labels | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    send_welcome_message: bool | UnsetType = UNSET


class NewPlan(msgspec.Struct, kw_only=True):
    """POST /variants, and its deprecated alias POST /plans."""

    product_id: Text
    account_id: str | None = None
    plan_type: Literal["one_time", "renewal"] = "one_time"
    initial_price: Price = 0.0
    renewal_price: Price = 0.0
    currency: str = "usd"
    billing_period: Days | None = None
    expiration_days: Days | None = None
    trial_period_days: Annotated[int, Meta(ge=0)] | None = None
    visibility: Visibility = "visible"
    release_method: Literal["buy_now", "waitlist"] = "buy_now"
    unlimited_stock: bool = True
    stock: Annotated[int, Meta(ge=0)] | None = None
    title: PlanTitle | None = None
    description: str | None = None
    internal_notes: str | None = None
    metadata: Metadata = {}


class PlanPatch(msgspec.Struct, kw_only=True):
    """PATCH /variants/{id}."""

    initial_price: Price | UnsetType = UNSET
    renewal_price: Price | UnsetType = UNSET
    billing_period: Days | UnsetType | None = UNSET
    expiration_days: Days | UnsetType | None = UNSET
    trial_period_days: Annotated[int, Meta(ge=0)] | UnsetType | None = UNSET
    visibility: Visibility | UnsetType = UNSET
    unlimited_stock: bool | UnsetType = UNSET
    stock: Annotated[int, Meta(ge=0)] | UnsetType | None = UNSET
    title: PlanTitle | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    internal_notes: str | UnsetType | None = UNSET
    metadata: Metadata | UnsetType = UNSET


class NewExperience(msgspec.Struct, kw_only=True):
    """POST /experiences."""

    account_id: Text
    app_id: Text
    name: Name | None = None
    is_public: bool = False


class ExperiencePatch(msgspec.Struct, kw_only=True):
    """PATCH /experiences/{id}."""

    name: Name | UnsetType = UNSET
    access_level: Literal["public", "private"] | UnsetType = UNSET
    is_public: bool | UnsetType = UNSET
    order: str | UnsetType | None = UNSET


class ProductLink(msgspec.Struct, kw_only=True):
    """POST /experiences/{id}/attach and /detach."""

    product_id: Text


class ChannelPatch(msgspec.Struct, kw_only=True):
    """PATCH /chat_channels/{id}; null or 0 removes the cooldown."""

    ban_media: bool | UnsetType = UNSET
    ban_urls: bool | UnsetType = UNSET
    banned_words: list[str] | UnsetType = UNSET
    user_posts_cooldown_seconds: Annotated[int, Meta(ge=0)] | UnsetType | None = UNSET
    who_can_post: WhoCanPost | UnsetType = UNSET
    who_can_react: WhoCanReact | UnsetType = UNSET


class NewMessage(msgspec.Struct, kw_only=True):
    """POST /messages; attachments and polls are taken and dropped."""

    channel_id: Text
    content: Text
    replying_to_message_id: str | None = None


class MessagePatch(msgspec.Struct, kw_only=True):
    """PATCH /messages/{id}."""

    content: Text | UnsetType = UNSET
    is_pinned: bool | UnsetType = UNSET


class NewMembership(msgspec.Struct, kw_only=True):
    """POST /memberships at 2026-06-09; whether it takes metadata is not documented."""

    plan_id: Text
    user_id: Text
    metadata: Metadata = {}


class NewInvitation(msgspec.Struct, kw_only=True):
    """POST /memberships/invite: one of `user_id` and `email`."""

    plan_id: Text
    user_id: str | None = None
    email: str | None = None


class MembershipPatch(msgspec.Struct, kw_only=True):
    """PATCH /memberships/{id}: metadata is merged, `{}` clears it."""

    metadata: Metadata | UnsetType = UNSET
    cancel_at_period_end: bool | UnsetType = UNSET


class NewSupportChannel(msgspec.Struct, kw_only=True):
    """POST /support_channels."""

    account_id: Text
    user_id: Text


class Cancellation(msgspec.Struct, kw_only=True):
    """POST /memberships/{id}/cancel: at once, unless it says otherwise."""

    cancel_at_period_end: bool = False
    reason: str | None = None


class NewWebhook(msgspec.Struct, kw_only=True):
    """POST /webhooks; `api_version` is refused since 2026-08-12."""

    url: Text
    events: list[str] = []
    resource_id: str | None = None
    api_version_date: str | None = None
    child_resource_events: bool = False
    enabled: bool = True
    api_version: str | None = None


class WebhookPatch(msgspec.Struct, kw_only=True):
    """PATCH /webhooks/{id}; `api_version_date` null takes the pin away."""

    url: Text | UnsetType = UNSET
    events: list[str] | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    api_version_date: str | UnsetType | None = UNSET
    child_resource_events: bool | UnsetType = UNSET


class ReplayOne(msgspec.Struct, kw_only=True):
    """POST /webhooks/{id}/deliveries/{id}/replay."""

    regenerate_id: bool = False


class ReplayMany(msgspec.Struct, kw_only=True):
    """POST /webhooks/{id}/replay."""

    sent_after: Text
    sent_before: str | None = None
    events: list[str] | None = None
    failed_only: bool = False
    regenerate_ids: bool = False


class TestEvent(msgspec.Struct, kw_only=True):
    """POST /webhooks/{id}/test."""

    event: Text


def sent(patch: msgspec.Struct) -> dict[str, Any]:
    """Return the fields that a PATCH carried."""
    fields = {name: getattr(patch, name) for name in patch.__struct_fields__}
    return {name: value for name, value in fields.items() if value is not UNSET}
