"""The objects as unpinned webhooks carry them: nested objects, amounts as numbers.

Taken from the documented samples of Whop's webhooks and from the SDKs before version 1
(`whop_sdk` 0.0.41). Refunds look like this in pinned webhooks too (`RefundLegacy`).
"""

from worker.sandbox import shapes
from worker.sandbox.records import Dispute, Membership, Payment, Refund
from worker.sandbox.shapes import Json
from worker.sandbox.tables import Tables, iso, when


def membership(tables: Tables, held: Membership) -> Json:
    """Write a membership with its user, plan, product and company inside."""
    return {
        "id": held.id,
        "status": held.status,
        "created_at": when(held.created_at),
        "joined_at": when(held.created_at),
        "updated_at": when(held.updated_at),
        "manage_url": f"{shapes.SITE}/billing/manage/{held.id}",
        "member": None if held.member_id is None else {"id": held.member_id},
        "user": _user(tables, held.user_id),
        "renewal_period_start": when(held.period_start),
        "renewal_period_end": iso(held.period_end),
        "cancel_at_period_end": held.cancel_at_period_end,
        "cancel_option": None,
        "cancellation_reason": held.cancellation_reason,
        "canceled_at": iso(held.canceled_at),
        "currency": tables.plans[held.plan_id].currency,
        "company": {"id": tables.account.id, "title": tables.account.title},
        "plan": _plan(tables, held.plan_id),
        "product": _product(tables, held.product_id),
        "promo_code": None,
        "license_key": None,
        "metadata": held.metadata,
        "payment_collection_paused": held.paused,
        "checkout_configuration_id": None,
        "custom_field_responses": [],
    }


def payment(tables: Tables, paid: Payment) -> Json:
    """Write a payment with what it was for inside."""
    return _charge(tables, paid) | {
        "status": paid.status,
        "substatus": paid.substatus,
        "company": shapes.company(tables),
        "product": _product(tables, paid.product_id)
        | {"route": tables.products[paid.product_id].route},
        "refundable": paid.substatus == "succeeded",
        "retryable": paid.status == "open",
        "voidable": False,
        "auto_refunded": False,
        "amount_after_fees": paid.amount,
        "refunded_amount": paid.refunded_amount,
        "refunded_at": iso(paid.refunded_at),
        "last_payment_attempt": when(paid.updated_at),
        "next_payment_attempt": None,
        "failure_message": paid.failure_message,
        "payment_method": None,
        "promo_code": None,
        "checkout_configuration_id": None,
        "disputes": None,
        "refunds": [],
        "resolutions": None,
    }


def _charge(tables: Tables, paid: Payment) -> Json:
    """Write what a payment and the payment inside a refund have in common."""
    held = tables.memberships[paid.membership_id]
    return {
        "id": paid.id,
        "total": paid.amount,
        "subtotal": paid.amount,
        "usd_total": paid.amount,
        "currency": paid.currency,
        "billing_reason": paid.billing_reason,
        "created_at": when(paid.created_at),
        "paid_at": iso(paid.paid_at),
        "dispute_alerted_at": None,
        "member": None if paid.member_id is None else {"id": paid.member_id, "phone": None},
        "membership": {"id": held.id, "status": held.status},
        "metadata": {},
        "plan": _plan(tables, paid.plan_id),
        "product": _product(tables, paid.product_id),
        "user": _user(tables, paid.user_id),
    }


def refund(tables: Tables, back: Refund) -> Json:
    """Write a refund with the payment it gives back."""
    return {
        "id": back.id,
        "amount": back.amount,
        "currency": back.currency,
        "status": back.status,
        "provider": "stripe",
        "provider_created_at": when(back.created_at),
        "reference_status": None,
        "reference_type": None,
        "reference_value": None,
        "metadata": {},
        "payment": _charge(tables, tables.payments[back.payment_id]),
        "created_at": when(back.created_at),
    }


def dispute(tables: Tables, claim: Dispute) -> Json:
    """Write a dispute as webhooks pinned before 2026-07-25 carry it."""
    paid = tables.payments[claim.payment_id]
    return {
        "id": claim.id,
        "amount": claim.amount,
        "currency": claim.currency,
        "status": claim.status,
        "reason": claim.reason,
        "editable": claim.status == "needs_response",
        "needs_response_by": None,
        "visa_rdr": False,
        "company": {"id": tables.account.id, "title": tables.account.title},
        "payment": {"id": paid.id},
        "plan": {"id": paid.plan_id},
        "product": {"id": paid.product_id, "title": tables.products[paid.product_id].title},
        "created_at": when(claim.created_at),
    }


def _user(tables: Tables, user_id: str | None) -> Json | None:
    """Write the buyer; null when the membership is unclaimed."""
    person = tables.users.get(user_id or "")
    if person is None:
        return None
    return {
        "id": person.id,
        "username": person.username,
        "name": person.name,
        "email": person.email,
    }


def _plan(tables: Tables, plan_id: str) -> Json:
    return {"id": plan_id, "metadata": tables.plans[plan_id].metadata}


def _product(tables: Tables, product_id: str) -> Json:
    item = tables.products[product_id]
    return {"id": item.id, "title": item.title, "metadata": item.metadata}
