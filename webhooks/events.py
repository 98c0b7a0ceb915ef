"""The envelope of a delivery and the few facts we read from it, in both payload shapes. Pure.

A webhook pinned to a version of Whop's API sends flat ids (`user_id`) and `account_id`; one
without a pin sends nested objects (`user.id`) and `company_id`. Unknown fields are ignored, and a
field of an unexpected type reads as absent: the delivery still says where to look.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

INTERESTING = frozenset(
    {
        "membership.activated",
        "membership.deactivated",
        "membership.updated",
        "membership.cancel_at_period_end_changed",
        "payment.succeeded",
        "payment.failed",
        "refund.created",
        "refund.updated",
        "dispute.created",
        "dispute.updated",
    }
)
"""The types that can change what somebody should have."""

COUNTED = frozenset({"chat.message.created"})
"""The types of which only the number matters: how busy a chat is. Every type that is neither here
nor in `INTERESTING` is acknowledged and dropped."""

BUCKET: Final = 10
"""Seconds in which messages are counted together."""

LATE: Final = 4 * 60 * 1000
"""Milliseconds after which a message says nothing of how busy its chat is. Whop's first two tries
after a failure come within three minutes; the next comes after ten, and the last after 71 hours."""


class Malformed(ValueError):
    """The body is not a JSON object with `id`, `type` and `data`; the message says what is."""


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """One webhook message as received: what is kept of it, and all that anybody acts on.

    `subject` is what to look at again: `member:user_...`, or `membership:mem_...` or
    `payment:pay_...` where the message names no user; None where it names nobody at all.
    `received` is in milliseconds since the epoch; `updated_at` is when Whop last changed it.
    """

    id: str
    type: str
    received: int
    account: str | None = None
    subject: str | None = None
    user: str | None = None
    membership: str | None = None
    payment: str | None = None
    product: str | None = None
    plan: str | None = None
    status: str | None = None
    updated_at: datetime | None = None

    @property
    def about(self) -> str:
        """The object of Whop's that the type names: membership, payment, refund or dispute."""
        return self.type.partition(".")[0]


class Message(msgspec.Struct, frozen=True):
    """One message of a chat, as far as it is counted; what it says is never looked at.

    `at` is when it was written and `received` when we heard of it, in milliseconds since the
    epoch. `sender` is the user, or, where none is named, the delivery: then nobody is taken for
    one who writes too much. `uncounted` says in words why it is not to be counted, if so.
    """

    id: str
    type: str
    received: int
    account: str | None
    channel: str | None
    sender: str
    at: int
    uncounted: str | None

    @property
    def bucket(self) -> int:
        """The number of the ten seconds in which it was written."""
        return self.at // (BUCKET * 1000)


def read(body: bytes, *, received: int) -> Delivery | Message:
    """Read a delivery from the bytes of its body; one that is only counted reads as a message.

    Raises:
        Malformed: the body is not a JSON object with a string `id`, a string `type` and an
            object `data`.
    """
    try:
        envelope = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"the body is not JSON: {error}") from error
    if not isinstance(envelope, dict):
        raise Malformed(f"the body is a JSON {type(envelope).__name__}, not an object")
    id_, type_, data = envelope.get("id"), envelope.get("type"), envelope.get("data")
    if not (isinstance(id_, str) and id_ and isinstance(type_, str) and isinstance(data, dict)):
        raise Malformed("the envelope lacks an id (string), a type (string) or data (object)")
    account = text(envelope, "account_id") or text(envelope, "company_id")
    make = _message if type_ in COUNTED else _facts
    return make(id_, type_, data, account, received)


def _message(
    id_: str, type_: str, data: Mapping[str, Any], account: str | None, at: int
) -> Message:
    message, place = table(data, "message"), table(data, "channel")
    written = moment(text(message, "created_at"))
    # A clock of Whop's that is ahead of ours would count into minutes that nobody looks at yet.
    when = min(at, int(written.timestamp() * 1000)) if written else at
    channel = reference(data, "channel") or reference(message, "channel")
    return Message(
        id=id_,
        type=type_,
        received=at,
        account=account,
        channel=channel,
        sender=reference(message, "user") or reference(data, "user") or id_,
        at=when,
        uncounted=_uncounted(
            channel, text(place, "type"), text(message, "message_type"), late=at - when > LATE
        ),
    )


def _uncounted(
    channel: str | None, place: str | None, kind: str | None, *, late: bool
) -> str | None:
    if not channel:
        return "it names no channel"
    if place not in (None, "chat"):
        return "it was not written in a chat"
    if kind not in (None, "regular"):
        return "no member wrote it"
    return "it is too old to say how busy the chat is" if late else None


def _facts(id_: str, type_: str, data: Mapping[str, Any], account: str | None, at: int) -> Delivery:
    about = type_.partition(".")[0]
    payment = data if about == "payment" else table(data, "payment")
    around = data if about in ("membership", "payment") else payment
    user = reference(around, "user") or reference(table(data, "buyer"), "user")
    membership = text(data, "id") if about == "membership" else reference(around, "membership")
    paid = text(payment, "id")
    return Delivery(
        id=id_,
        type=type_,
        received=at,
        account=account,
        subject=_subject(user, membership, paid),
        user=user,
        membership=membership,
        payment=paid,
        product=reference(data, "product") or reference(around, "product"),
        plan=reference(data, "plan") or reference(around, "plan"),
        status=text(data, "status"),
        updated_at=moment(text(data, "updated_at")),
    )


def _subject(user: str | None, membership: str | None, payment: str | None) -> str | None:
    if user:
        return f"member:{user}"
    if membership:
        return f"membership:{membership}"
    return f"payment:{payment}" if payment else None


def reference(data: Mapping[str, Any], name: str) -> str | None:
    """Return the id of an object that is named flat (`user_id`) or nested (`user.id`)."""
    return text(data, f"{name}_id") or text(table(data, name), "id")


def text(data: Mapping[str, Any], key: str) -> str | None:
    """Return a non-empty string, or None where there is anything else."""
    value = data.get(key)
    return value if isinstance(value, str) and value else None


def table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return an object, or an empty one where there is anything else."""
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def moment(value: str | None) -> datetime | None:
    """Return the instant, in UTC, of an ISO 8601 text; one without an offset is in UTC."""
    try:
        at = datetime.fromisoformat(value or "")
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
