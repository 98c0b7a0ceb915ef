"""What the page shows: products, buyers, rooms, and how the webhooks fare."""

from itertools import islice

from worker.sandbox.journal import Journal
from worker.sandbox.records import Experience, Membership, Product
from worker.sandbox.shapes import Json, channel
from worker.sandbox.state import LocalWhop
from worker.sandbox.tables import iso, when

SHOWN = 200


def overview(whop: LocalWhop, journal: Journal) -> Json:
    """Write everything that the page draws; of buyers, only the last few hundred."""
    tables = whop.tables
    recent = islice(reversed(tables.memberships.values()), SHOWN)
    return {
        "account": {"id": tables.account.id, "title": tables.account.title},
        "now": when(whop.now()),
        "products": [_product(whop, item) for item in tables.products.values()],
        "memberships": [_membership(whop, held) for held in recent],
        "memberships_total": len(tables.memberships),
        "rooms": [_room(whop, room) for room in tables.experiences.values()],
        "invitations": [
            {"id": one.id, "plan_id": one.plan_id, "to": one.user_id or one.email}
            for one in tables.invitations.values()
            if one.accepted_at is None
        ],
        "webhooks": [_webhook(whop, hook_id) for hook_id in tables.webhooks],
        "calls": sum(sum(counts.values()) for counts in journal.counts.values()),
    }


def _product(whop: LocalWhop, item: Product) -> Json:
    plans = whop.catalog.plans_of(item.id)
    return {
        "id": item.id,
        "title": item.title,
        "visibility": item.visibility,
        "members": sum(held.entitled for held in whop.index.by_product[item.id]),
        "plans": [
            {
                "id": plan.id,
                "type": plan.plan_type,
                "price": plan.renewal_price if plan.plan_type == "renewal" else plan.initial_price,
                "free": plan.free,
            }
            for plan in plans
        ],
    }


def _membership(whop: LocalWhop, held: Membership) -> Json:
    user = whop.tables.users.get(held.user_id or "")
    return {
        "id": held.id,
        "user_id": held.user_id,
        "username": None if user is None else user.username,
        "product_id": held.product_id,
        "status": held.status,
        "entitled": held.entitled,
        "ended": held.ended,
        "renews": held.period_end is not None and held.billing != "completed",
        "created_at": when(held.created_at),
        "period_end": iso(held.period_end),
    }


def _room(whop: LocalWhop, room: Experience) -> Json:
    chat = whop.index.channel_by_experience.get(room.id)
    settings = None if chat is None else channel(whop.tables, chat, moderator=True)
    return {
        "id": room.id,
        "name": room.name,
        "is_public": room.is_public,
        "product_ids": room.product_ids,
        "channel": settings,
        "may_enter": _entrants(whop, room),
    }


def _entrants(whop: LocalWhop, room: Experience) -> Json:
    """Count who may enter, and name the first of them."""
    found = {
        held.user_id: None
        for product_id in room.product_ids
        for held in whop.index.by_product[product_id]
        if held.entitled and held.user_id is not None
    }
    users = whop.tables.users
    return {"count": len(found), "names": [users[one].username for one in islice(found, 12)]}


def _webhook(whop: LocalWhop, webhook_id: str) -> Json:
    hook = whop.tables.webhooks[webhook_id]
    last = next(iter(whop.outbox.newest_first(webhook_id)), None)
    return {
        "id": hook.id,
        "url": hook.url,
        "enabled": hook.enabled,
        "failures": hook.consecutive_failures,
        "waiting": len(whop.outbox),
        "last": None if last is None else {"event": last.event, "code": last.response_code},
    }
