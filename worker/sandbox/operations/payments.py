"""Payments, and the refunds and disputes that follow some of them."""

from datetime import timedelta

from worker.sandbox import shapes
from worker.sandbox.call import Call, Operation
from worker.sandbox.pages import paginate
from worker.sandbox.refusals import NotFound
from worker.sandbox.shapes import Json

FILTERS = (
    "status",
    "billing_reason",
    "currency",
    "user_id",
    "member_id",
    "membership_id",
    "product_id",
    "plan_id",
)


def listing(call: Call) -> Json:
    """List payments."""
    mine, span = call.account(), call.since()
    wanted = {name: value for name in FILTERS if (value := call.one(name)) is not None}
    rows = (
        paid
        for paid in call.listed(call.whop.tables.payments.values())
        if mine
        and all(getattr(paid, name) == value for name, value in wanted.items())
        and paid.created_at in span
    )
    page = paginate(rows, lambda paid: (paid.seq,), call.window())
    return page.json(lambda paid: shapes.payment(call.whop.tables, paid))


def retrieve(call: Call) -> Json:
    """Read one payment."""
    paid = call.whop.till.payment(call.id)
    young = timedelta(seconds=call.whop.faults.payment_readable_after_seconds)
    if call.whop.core.clock() - paid.created_at < young:
        raise NotFound(f"Payment not found: {call.id}")
    return shapes.payment(call.whop.tables, paid)


def refund(call: Call) -> Json:
    """Read one refund."""
    return shapes.refund(call.whop.tables, call.whop.till.refund_of(call.id))


def dispute(call: Call) -> Json:
    """Read one dispute."""
    return shapes.dispute(call.whop.tables, call.whop.till.dispute_of(call.id))


READ = ("payment:basic:read",)

OPERATIONS = (
    Operation("payments.list", "GET", "/payments", READ, listing),
    Operation("payments.retrieve", "GET", "/payments/{id}", READ, retrieve),
    Operation("refunds.retrieve", "GET", "/refunds/{id}", READ, refund),
    Operation("disputes.retrieve", "GET", "/disputes/{id}", READ, dispute),
)
