"""A webhook's body: the envelope and the object inside, in the shape the webhook is pinned to.

A webhook with an `api_version_date` gets what the REST API gives at that date and `account_id`;
one without gets nested objects and `company_id` (Whop: Webhooks, API version v1). The local Whop
knows one pinned shape, that of 2026-10-15-1.
"""

from datetime import datetime
from typing import Any

import msgspec

from worker.sandbox import legacy, shapes
from worker.sandbox.records import (
    Dispute,
    Membership,
    Message,
    Payment,
    Record,
    Refund,
    Webhook,
)
from worker.sandbox.shapes import Json
from worker.sandbox.tables import Tables, when


def data(tables: Tables, record: Record, *, pinned: bool) -> Json:
    """Write the object that an event is about."""
    match record:
        case Membership():
            shape = shapes.membership if pinned else legacy.membership
            return shape(tables, record)
        case Payment():
            return (shapes.payment if pinned else legacy.payment)(tables, record)
        case Refund():
            return legacy.refund(tables, record)
        case Dispute() if pinned:
            return shapes.dispute(tables, record)
        case Dispute():
            return legacy.dispute(tables, record)
        case Message():
            return _chat_message(tables, record)
        case _:
            raise TypeError(f"no webhook carries a {type(record).__name__}")


def _chat_message(tables: Tables, said: Message) -> Json:
    """Write a message with its channel and audience; the reason's values are not documented."""
    experience_id = tables.channels[said.channel_id].experience_id
    return {
        "audience": {"type": "channel", "user_ids": None},
        "channel": {"id": said.channel_id, "type": "chat", "experience_id": experience_id},
        "message": shapes.message(tables, said),
        "reason": "message_created",
    }


def envelope(
    tables: Tables,
    hook: Webhook,
    *,
    message_id: str,
    event: str,
    now: datetime,
    content: Json,
    previous: dict[str, Any] | None,
) -> msgspec.Raw:
    """Write the whole body; `timestamp` is when the thing happened, also on a retry."""
    owner = "account_id" if hook.api_version_date else "company_id"
    body = {
        "id": message_id,
        "api_version": "v1",
        "api_version_date": hook.api_version_date,
        "timestamp": when(now),
        "type": event,
        owner: tables.account.id,
        "data": content,
    }
    if previous:
        body["previous_attributes"] = previous
    return msgspec.Raw(msgspec.json.encode(body))


def renamed(body: msgspec.Raw, message_id: str) -> msgspec.Raw:
    """Return the body under a new message id, for a replay that asks for one."""
    content = msgspec.json.decode(body) | {"id": message_id}
    return msgspec.Raw(msgspec.json.encode(content))
