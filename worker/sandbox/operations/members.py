"""Members, users, what they can reach, and what the calling key may do."""

from collections.abc import Iterable

from worker.sandbox import shapes
from worker.sandbox.call import Call, Operation
from worker.sandbox.pages import paginate
from worker.sandbox.records import Member, Membership
from worker.sandbox.refusals import BadRequest
from worker.sandbox.shapes import Json

READ = "member:basic:read"
EMAIL = "member:email:read"

ACTIONS = (
    "access_pass:basic:read",
    "access_pass:create",
    "access_pass:delete",
    "access_pass:update",
    "chat:message:create",
    "chat:moderate",
    "chat:read",
    "developer:manage_webhook",
    "experience:attach",
    "experience:create",
    "experience:delete",
    "experience:detach",
    "experience:update",
    "member:basic:read",
    "member:email:read",
    "membership:cancel",
    "membership:create",
    "member:manage",
    "membership:update",
    "payment:basic:read",
    "plan:basic:read",
    "plan:create",
    "plan:delete",
    "plan:update",
    "support_chat:create",
    "support_chat:message:create",
    "support_chat:read",
)
"""The permission actions that the local Whop asks for, of the hundreds that Whop has."""


def listing(call: Call) -> Json:
    """List members, one per person."""
    orders = {"created_at", "joined_at", None}
    if call.one("order") not in orders:
        raise BadRequest("order: the local Whop knows created_at and joined_at")
    nothing = not call.account() or call.many("most_recent_actions", "promo_code_ids")
    rows = [] if nothing else [one for one in _candidates(call) if _wanted(call, one)]
    page = paginate(rows, lambda one: (one.seq,), call.window())
    return page.json(lambda one: _shape(call, one))


def _candidates(call: Call) -> Iterable[Member]:
    members = call.whop.tables.members.values()
    user_ids = call.many("user_ids")
    by_user = call.whop.index.member_by_user
    return [by_user[one] for one in user_ids if one in by_user] if user_ids else members


def _wanted(call: Call, one: Member) -> bool:
    level = shapes.access_level(call.whop.tables, call.whop.index, one.user_id)
    status = "left" if level == "no_access" else "joined"
    return (
        call.one("access_level") in (None, level)
        and call.one("status") in (None, status)
        and one.created_at in call.since()
        and _named(call, one)
        and _holds(call, one)
    )


def _named(call: Call, one: Member) -> bool:
    """Match `query`: part of the name or username, or the whole e-mail."""
    query = (call.one("query") or "").lower()
    person = call.whop.tables.users[one.user_id]
    if query and query == person.email:
        return call.may(EMAIL)
    return query in person.username.lower() or query in person.name.lower()


def _holds(call: Call, one: Member) -> bool:
    """Match the filters on memberships: one membership must match all of them."""
    status = call.one("membership_status")
    products, plans = call.many("product_ids"), call.many("plan_ids")
    if not (status or products or plans):
        return True

    def matches(held: Membership) -> bool:
        return (
            (status is None or held.entitled == (status == "active"))
            and (not products or held.product_id in products)
            and (not plans or held.plan_id in plans)
        )

    return any(matches(held) for held in call.whop.index.by_user[one.user_id])


def _shape(call: Call, one: Member) -> Json:
    return shapes.member(call.whop.tables, call.whop.index, one, email=call.may(EMAIL))


def retrieve(call: Call) -> Json:
    """Read one member."""
    return _shape(call, call.whop.people.member(call.id))


def user(call: Call) -> Json:
    """Read a user by `user_` id or username; `me` is the account's owner."""
    name = call.whop.tables.account.owner_id if call.id == "me" else call.id
    person = call.whop.people.user(name)
    email = person.email if call.id == "me" else None
    return shapes.user(person) | {"email": email}


def check_access(call: Call) -> Json:
    """Say whether a person reaches an account, product or experience; admins always do."""
    person = call.whop.people.user(call.id)
    level = call.whop.rooms.may_reach(person.id, call.path["resource_id"])
    return {"has_access": level != "no_access", "access_level": level}


def permissions(call: Call) -> Json:
    """Say which actions the key is granted; on a resource that it cannot see, none."""
    text = call.one("actions")
    actions = ACTIONS if text is None else [action.strip() for action in text.split(",")]
    visible = _visible(call, call.one("resource_id"))
    granted = [(action, visible and call.may(action)) for action in actions]
    return {"data": [{"action": action, "granted": is_so} for action, is_so in granted]}


def _visible(call: Call, resource_id: str | None) -> bool:
    if resource_id is None:
        raise BadRequest("resource_id is required")
    tables = call.whop.tables
    return (
        resource_id == tables.account.id
        or resource_id in tables.products
        or resource_id in tables.experiences
    )


OPERATIONS = (
    Operation("members.list", "GET", "/members", (READ,), listing),
    Operation("members.retrieve", "GET", "/members/{id}", (READ,), retrieve),
    Operation("users.check_access", "GET", "/users/{id}/access/{resource_id}", (), check_access),
    Operation("users.retrieve", "GET", "/users/{id}", (), user),
    Operation("permissions.list", "GET", "/permissions", (), permissions),
)
