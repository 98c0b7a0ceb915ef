"""The objects as Whop's REST API gives them at Api-Version-Date 2026-10-15-1.

Fields and their presence are those of the official Python SDK 2.6.0 (`whop_sdk/types`), which
parses every one of them in the tests. Pinned webhooks carry the same shapes.
"""

from typing import Any

from worker.sandbox.records import (
    CHAT_APP,
    Channel,
    Dispute,
    Experience,
    Member,
    Membership,
    Message,
    Payment,
    Plan,
    Product,
    Refund,
    User,
    Webhook,
)
from worker.sandbox.tables import Index, Tables, iso, when

Json = dict[str, Any]

SITE = "https://whop.com"
PICTURE = {"url": f"{SITE}/avatar.png"}


def money(amount: float, currency: str) -> Json:
    """Write an amount as Whop's Money; the local Whop knows currencies of two decimals only."""
    return {
        "amount": f"{amount:.2f}",
        "currency": currency,
        "decimals": 2,
        "display_decimals": 2,
    }


def account(tables: Tables) -> Json:
    """Write the seller as memberships show it."""
    owner = tables.account
    return {"id": owner.id, "title": owner.title, "route": owner.route, "logo_url": None}


def company(tables: Tables) -> Json:
    """Write the seller as experiences show it."""
    owner = tables.account
    return {"id": owner.id, "route": owner.route, "title": owner.title}


def user(person: User) -> Json:
    """Write a user's profile; the e-mail is for `me` only (Whop: Users API)."""
    return {
        "id": person.id,
        "username": person.username,
        "name": person.name,
        "email": None,
        "bio": None,
        "created_at": when(person.created_at),
        "profile_picture": PICTURE,
        "balances": [],
        "social_links": [],
        "verification": {},
    }


def user_summary(person: User) -> Json:
    """Write a user as members and payments show one."""
    return {
        "id": person.id,
        "username": person.username,
        "name": person.name,
        "profile_picture": PICTURE,
    }


def product(tables: Tables, index: Index, item: Product) -> Json:
    """Write a product with its plans."""
    plans = [plan for plan in tables.plans.values() if plan.product_id == item.id]
    variants = [variant(tables, index, plan) for plan in plans if not plan.deleted]
    return product_row(tables, index, item) | {
        "marketplace_status": "not_available",
        "custom_cta": None,
        "custom_cta_url": None,
        "send_welcome_message": item.send_welcome_message,
        "variants": variants,
    }


def product_row(tables: Tables, index: Index, item: Product) -> Json:
    """Write a product as lists show it."""
    return {
        "id": item.id,
        "title": item.title,
        "route": item.route,
        "headline": item.headline,
        "description": item.description,
        "visibility": item.visibility,
        "labels": item.labels,
        "metadata": item.metadata,
        "account": account(tables),
        "member_count": sum(held.entitled for held in index.by_product[item.id]),
        "average_review_rating": 0.0,
        "published_reviews_count": 0,
        "gallery_images": [],
        "verified": False,
        "default_plan": None,
        "external_identifier": None,
        "variant_attributes": None,
        "created_at": when(item.created_at),
        "updated_at": when(item.updated_at),
    }


def variant(tables: Tables, index: Index, plan: Plan) -> Json:
    """Write a plan; lists show the same, and the SDK takes the superset for both."""
    sold = tables.products.get(plan.product_id)
    return {
        "id": plan.id,
        "plan_type": plan.plan_type,
        "product": None if sold is None else {"id": sold.id, "title": sold.title},
        "account": {"id": tables.account.id, "title": tables.account.title},
        "title": plan.title,
        "description": plan.description,
        "internal_notes": plan.internal_notes,
        "metadata": plan.metadata,
        "visibility": plan.visibility,
        "release_method": plan.release_method,
        "unlimited_stock": plan.unlimited_stock,
        "stock": plan.stock,
        "currency": plan.currency,
        "initial_price": plan.initial_price,
        "renewal_price": plan.renewal_price,
        "initial_price_due": money(first_charge(plan), plan.currency),
        "formatted_price": _formatted_price(plan),
        "billing_period": plan.billing_period,
        "expiration_days": plan.expiration_days,
        "trial_period_days": plan.trial_period_days,
        "purchase_url": f"{SITE}/checkout/{plan.id}",
        "member_count": sum(held.entitled for held in index.by_plan[plan.id]),
        "adaptive_pricing_enabled": False,
        "collect_tax": False,
        "tax_type": "unspecified",
        "custom_fields": [],
        "created_at": when(plan.created_at),
        "updated_at": when(plan.updated_at),
    }


def first_charge(plan: Plan) -> float:
    """Return what the first charge takes: the initial price, and the first period if there is one.

    A renewal plan charges both at once, unless it begins with a trial (Whop: Plans API).
    """
    renews = plan.plan_type == "renewal" and not plan.trial_period_days
    return plan.initial_price + (plan.renewal_price if renews else 0.0)


def _formatted_price(plan: Plan) -> str:
    if plan.free:
        return "Free"
    if plan.plan_type == "one_time":
        return f"${plan.initial_price:.2f}"
    return f"${plan.renewal_price:.2f} / {plan.billing_period} days"


def experience_row(tables: Tables, room: Experience) -> Json:
    """Write an experience as lists show it: without its products."""
    app = "Chat" if room.app_id == CHAT_APP else room.app_id
    return {
        "id": room.id,
        "name": room.name,
        "app": {"id": room.app_id, "name": app, "icon": None},
        "company": company(tables),
        "is_public": room.is_public,
        "order": room.order,
        "image": None,
        "created_at": when(room.created_at),
    }


def experience(tables: Tables, room: Experience) -> Json:
    """Write an experience with the products that open it."""
    opened_by = (tables.products[product_id] for product_id in room.product_ids)
    products = [{"id": item.id, "route": item.route, "title": item.title} for item in opened_by]
    return experience_row(tables, room) | {"products": products}


def channel(tables: Tables, chat: Channel, *, moderator: bool) -> Json:
    """Write a channel; `banned_words` reads [] for who may not moderate (ChatChannel)."""
    room = tables.experiences[chat.experience_id]
    return {
        "id": chat.id,
        "experience": {"id": room.id, "name": room.name},
        "ban_media": chat.ban_media,
        "ban_urls": chat.ban_urls,
        "banned_words": chat.banned_words if moderator else [],
        "user_posts_cooldown_seconds": chat.user_posts_cooldown_seconds,
        "who_can_post": chat.who_can_post,
        "who_can_react": chat.who_can_react,
    }


def message(tables: Tables, said: Message) -> Json:
    """Write a message with its author."""
    author = tables.users[said.user_id]
    return {
        "id": said.id,
        "content": said.content,
        "user": {"id": author.id, "username": author.username, "name": author.name},
        "is_pinned": said.is_pinned,
        "is_edited": said.is_edited,
        "message_type": "regular",
        "mentions": [],
        "mentions_everyone": False,
        "poll": None,
        "poll_votes": [],
        "reaction_counts": [],
        "replying_to_message_id": said.replying_to_message_id,
        "view_count": None,
        "created_at": when(said.created_at),
        "updated_at": when(said.updated_at),
    }


def membership(tables: Tables, held: Membership) -> Json:
    """Write a membership as the account reads it: flat ids, no e-mail."""
    plan = tables.plans[held.plan_id]
    renews = plan.plan_type == "renewal"
    action, action_at = _recent_action(held, renews=renews)
    return {
        "id": held.id,
        "status": held.status,
        "user_id": held.user_id,
        "member_id": held.member_id,
        "member": None,
        "plan_id": held.plan_id,
        "product_id": held.product_id,
        "product": _product_link(tables, held.product_id),
        "account": account(tables),
        "affiliate": None,
        "billing_period_days": plan.billing_period if renews else None,
        "cancel_at_period_end": held.cancel_at_period_end,
        "cancel_option": None,
        "canceled_at": iso(held.canceled_at),
        "cancellation_reason": held.cancellation_reason,
        "collection_method": "charge_automatically" if renews else None,
        "current_period_start": when(held.period_start),
        "current_period_end": iso(held.period_end),
        "expires_at": iso(held.expires_at),
        "feedback_option": None,
        "initial_price": money(plan.initial_price, plan.currency),
        "renewal_price": money(plan.renewal_price, plan.currency) if renews else None,
        "license_key": None,
        "manage_url": f"{SITE}/billing/manage/{held.id}",
        "metadata": held.metadata,
        "most_recent_action": action,
        "most_recent_action_at": action_at,
        "phone_number": None,
        "promo_code_id": None,
        "split_pay_current_payments": None,
        "split_pay_required_payments": None,
        "created_at": when(held.created_at),
        "updated_at": when(held.updated_at),
    }


def _product_link(tables: Tables, product_id: str) -> Json:
    return {"id": product_id, "title": tables.products[product_id].title, "logo_url": None}


def _recent_action(held: Membership, *, renews: bool) -> tuple[str | None, str | None]:
    if held.canceled_at is not None and held.ended:
        return "canceled_on", when(held.canceled_at)
    if held.cancel_at_period_end:
        return "canceling_on", iso(held.period_end)
    if held.paused:
        return "paused_at", when(held.updated_at)
    if held.billing == "past_due":
        return "past_due", when(held.updated_at)
    return ("renewing_on", iso(held.period_end)) if renews and not held.ended else (None, None)


def access_level(tables: Tables, index: Index, user_id: str) -> str:
    """Say what a person can reach on the account: team members read as `admin`."""
    if user_id in tables.team:
        return "admin"
    holds = any(held.entitled for held in index.by_user[user_id])
    return "customer" if holds else "no_access"


def member(tables: Tables, index: Index, one: Member, *, email: bool) -> Json:
    """Write a member; the e-mail needs `member:email:read`."""
    person = tables.users[one.user_id]
    level = access_level(tables, index, one.user_id)
    return {
        "id": one.id,
        "account_id": tables.account.id,
        "user": user_summary(person),
        "display_name": person.name,
        "email": person.email if email else None,
        "phone_number": None,
        "access_level": level,
        "status": "left" if level == "no_access" else "joined",
        "most_recent_action": "joined",
        "most_recent_action_at": when(one.created_at),
        "last_accessed_at": None,
        "token_balance": 0,
        "usd_total_spent": money(spent(index, one.user_id), "usd"),
        "joined_at": when(one.created_at),
        "created_at": when(one.created_at),
    }


def spent(index: Index, user_id: str) -> float:
    """Return what a person has paid so far, less what was refunded."""
    return sum(
        paid.amount - paid.refunded_amount
        for held in index.by_user[user_id]
        for paid in index.payments_by_membership[held.id]
        if paid.status == "paid"
    )


def payment(tables: Tables, paid: Payment) -> Json:
    """Write a payment; `succeeded` is a substatus, the status says `paid`."""
    total = money(paid.amount, paid.currency)
    nothing = money(0, paid.currency)
    person = tables.users.get(paid.user_id or "")
    return {
        "id": paid.id,
        "account_id": tables.account.id,
        "member_id": paid.member_id,
        "membership_id": paid.membership_id,
        "plan_id": paid.plan_id,
        "product_id": paid.product_id,
        "user": None if person is None else user_summary(person),
        "customer_email": None if person is None else person.email,
        "status": paid.status,
        "substatus": paid.substatus,
        "billing_reason": paid.billing_reason,
        "currency": paid.currency,
        "total": total,
        "subtotal": total,
        "usd_total": total,
        "amount_after_fees": total,
        "tax_refunded_amount": nothing,
        "refunded_amount": money(paid.refunded_amount, paid.currency),
        "refunded_at": iso(paid.refunded_at),
        "auto_refunded": False,
        "refundable": paid.substatus == "succeeded",
        "retryable": paid.status == "open",
        "voidable": False,
        "failure_message": paid.failure_message,
        "payments_failed": 0 if paid.status == "paid" else 1,
        "holds": [],
        "line_items": [],
        "payment_rule_matches": [],
        "three_ds_verified": False,
        "paid_at": iso(paid.paid_at),
        "last_payment_attempt_at": when(paid.updated_at),
        "metadata": {},
        "created_at": when(paid.created_at),
        "updated_at": when(paid.updated_at),
    }


def refund(tables: Tables, back: Refund) -> Json:
    """Write a refund as the REST API gives it; its webhooks keep the legacy shape."""
    return {
        "id": back.id,
        "account_id": tables.account.id,
        "payment_id": back.payment_id,
        "amount": money(back.amount, back.currency),
        "original_amount": money(back.amount, back.currency),
        "status": back.status,
        "provider": "stripe",
        "reason": "requested_by_customer",
        "visa_rdr": False,
        "created_at": when(back.created_at),
        "updated_at": when(back.updated_at),
    }


def dispute(tables: Tables, claim: Dispute) -> Json:
    """Write a dispute; it names no membership, only the payment (Whop: Disputes API)."""
    paid = tables.payments[claim.payment_id]
    buyer = tables.users.get(paid.user_id or "")
    return {
        "id": claim.id,
        "account_id": tables.account.id,
        "amount": claim.amount,
        "currency": claim.currency,
        "status": claim.status,
        "inquiry": claim.status.startswith("warning_"),
        "reason": claim.reason,
        "reason_code": None,
        "plan_id": paid.plan_id,
        "product_id": paid.product_id,
        "buyer": {
            "user_id": paid.user_id,
            "member_id": paid.member_id,
            "username": None if buyer is None else buyer.username,
            "name": None if buyer is None else buyer.name,
            "email": None if buyer is None else buyer.email,
        },
        "payment": {
            "id": paid.id,
            "amount": paid.amount,
            "currency": paid.currency,
            "created_at": when(paid.created_at),
        },
        "acceptable": claim.status == "needs_response",
        "evidence": {"documents": []},
        "evidence_editable": claim.status == "needs_response",
        "issuer_comments": [],
        "line_items": [],
        "created_at": when(claim.created_at),
        "updated_at": when(claim.updated_at),
    }


def webhook(tables: Tables, hook: Webhook, *, reveal: bool) -> Json:
    """Write a webhook; its secret is told once, in the answer that creates it."""
    return {
        "id": hook.id,
        "resource_id": tables.account.id,
        "url": hook.url,
        "events": hook.events,
        "testable_events": list(TESTABLE),
        "enabled": hook.enabled,
        "api_version": "v1",
        "api_version_date": hook.api_version_date,
        "child_resource_events": hook.child_resource_events,
        "consecutive_failures": hook.consecutive_failures,
        "failing_since": iso(hook.failing_since),
        "last_failure_at": iso(hook.last_failure_at),
        "disabled_at": iso(hook.disabled_at),
        "disabled_reason": None if hook.disabled_at is None else "delivery_failures",
        "webhook_secret": hook.secret if reveal else None,
        "created_at": when(hook.created_at),
    }


TESTABLE = ("membership.activated", "membership.deactivated", "membership.updated")
