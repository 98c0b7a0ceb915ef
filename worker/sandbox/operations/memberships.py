"""Memberships: list, read, change, create, invite, cancel, pause, resume."""

from collections.abc import Callable, Iterable

from worker.sandbox import bodies, shapes
from worker.sandbox.call import Call, Operation
from worker.sandbox.gate import CREATE_MEMBERSHIP_VERSION
from worker.sandbox.pages import paginate
from worker.sandbox.records import Membership
from worker.sandbox.refusals import BadRequest
from worker.sandbox.shapes import Json

READ = "member:basic:read"

BUCKETS: dict[str, Callable[[Membership], bool]] = {
    "active": lambda held: held.status == "active",
    "trialing": lambda held: held.status == "trialing",
    "past_due": lambda held: held.status == "past_due",
    "completed": lambda held: held.status == "completed",
    "canceled": lambda held: held.status == "canceled",
    "expired": lambda held: held.status == "expired",
    "canceling": lambda held: held.cancel_at_period_end and not held.ended,
    "paused": lambda held: held.paused and not held.ended,
    "expiring": lambda held: held.status == "completed" and held.expires_at is not None,
    "one_time": lambda held: held.status == "completed" and held.expires_at is None,
    "unclaimed": lambda held: held.user_id is None,
    "banned": lambda _held: False,
}
"""The values of the `status` filter and what they mean (Whop: List memberships).

`active`, `trialing` and `past_due` leave out what is set to cancel at its period's end, because
its status is `canceling` then. Nobody is ever banned from the local Whop.
"""


def listing(call: Call) -> Json:
    """List memberships; filters out of reach give fewer rows, never an error."""
    statuses = call.many("status", "statuses")
    if unknown := statuses - BUCKETS.keys():
        raise BadRequest(f"status: unknown value {min(unknown)!r}")
    span, promo = call.since(), call.many("promo_code_ids")
    products, plans = call.many("product_id", "product_ids"), call.many("plan_id", "plan_ids")
    user_id, member_id = call.one("user_id"), call.one("member_id")

    def wanted(held: Membership) -> bool:
        return (
            (user_id is None or held.user_id == user_id)
            and (member_id is None or held.member_id == member_id)
            and (not products or held.product_id in products)
            and (not plans or held.plan_id in plans)
            and (not statuses or any(BUCKETS[name](held) for name in statuses))
            and held.created_at in span
        )

    hidden = call.key is not None and not call.may(READ)  # then there is nothing, and no error
    nothing = promo or hidden or not call.account()
    candidates = call.listed(_candidates(call, user_id, member_id, products))
    rows = [] if nothing else filter(wanted, candidates)
    page = paginate(rows, lambda held: (held.seq,), call.window())
    return page.json(lambda held: shapes.membership(call.whop.tables, held))


def _candidates(
    call: Call, user_id: str | None, member_id: str | None, products: set[str]
) -> Iterable[Membership]:
    """Return the smallest indexed set of memberships that holds every wanted one."""
    tables, index = call.whop.tables, call.whop.index
    if member_id is not None and member_id in tables.members:
        user_id = user_id or tables.members[member_id].user_id
    if user_id is not None:
        return index.by_user.get(user_id, [])
    if products:
        return [held for product_id in products for held in index.by_product.get(product_id, [])]
    return tables.memberships.values()


def _may_change(call: Call) -> None:
    """Refuse a key with neither of the two permissions that change a membership."""
    if call.key is not None and not call.may("member:manage"):
        call.need("membership:update")


def _answer(call: Call, held: Membership) -> Json:
    return shapes.membership(call.whop.tables, held)


def retrieve(call: Call) -> Json:
    """Read one membership."""
    return _answer(call, call.whop.memberships.get(call.id))


def update(call: Call) -> Json:
    """Merge metadata, or change whether it cancels at its period's end."""
    _may_change(call)
    return _answer(call, call.whop.memberships.update(call.id, call.body(bodies.MembershipPatch)))


def create(call: Call) -> Json:
    """Grant a membership on a free plan; documented at one Api-Version-Date only."""
    wanted = call.body(bodies.NewMembership)
    metadata = wanted.metadata if call.whop.faults.create_takes_metadata else {}
    return _answer(call, call.whop.memberships.grant(wanted.plan_id, wanted.user_id, metadata))


def invite(call: Call) -> Json:
    """Invite one person to a free plan."""
    call.whop.memberships.invite(call.body(bodies.NewInvitation))
    return {"invitation_sent": True}


def cancel(call: Call) -> Json:
    """Cancel at once, or at the period's end."""
    wanted = call.body(bodies.Cancellation)
    held = call.whop.memberships.cancel(
        call.id, at_period_end=wanted.cancel_at_period_end, reason=wanted.reason
    )
    return _answer(call, held)


def pause(call: Call) -> Json:
    """Pause billing; access stays."""
    return _answer(call, call.whop.memberships.set_paused(call.id, paused=True))


def resume(call: Call) -> Json:
    """Resume billing."""
    return _answer(call, call.whop.memberships.set_paused(call.id, paused=False))


GRANT = ("membership:create", "member:email:read", READ)
CANCEL = ("membership:cancel", READ)
UPDATE = ("membership:update", READ)

OPERATIONS = (
    Operation("memberships.list", "GET", "/memberships", (), listing),
    Operation(
        "memberships.create",
        "POST",
        "/memberships",
        GRANT,
        create,
        only_at=CREATE_MEMBERSHIP_VERSION,
        older=True,
    ),
    Operation("memberships.invite", "POST", "/memberships/invite", GRANT[:1], invite),
    Operation("memberships.retrieve", "GET", "/memberships/{id}", (READ,), retrieve),
    Operation("memberships.update", "PATCH", "/memberships/{id}", (READ,), update),
    Operation("memberships.cancel", "POST", "/memberships/{id}/cancel", CANCEL, cancel),
    Operation("memberships.pause", "POST", "/memberships/{id}/pause", UPDATE, pause),
    Operation("memberships.resume", "POST", "/memberships/{id}/resume", UPDATE, resume),
)
