"""Support chats: one between the account's team and each customer."""

from functools import partial

from worker.sandbox import bodies
from worker.sandbox.call import Call, Operation
from worker.sandbox.pages import paginate
from worker.sandbox.records import SupportChannel
from worker.sandbox.shapes import Json
from worker.sandbox.tables import iso, when


def listing(call: Call) -> Json:
    """List the support chats."""
    rows = call.whop.tables.support_channels.values() if call.account() else ()
    page = paginate(rows, lambda one: (one.seq,), call.window())
    return page.json(lambda one: _answer(call, one))


def create(call: Call) -> Json:
    """Open the support chat with a customer, by id or username; one that is there is returned."""
    wanted = call.body(bodies.NewSupportChannel)
    call.own_account(wanted.account_id)
    user = call.whop.people.user(wanted.user_id)
    return _answer(call, call.whop.rooms.support_channel(user.id))


def _answer(call: Call, one: SupportChannel) -> Json:
    person = call.whop.tables.users[one.user_id]
    said = call.whop.rooms.said_in(one.id)
    return {
        "id": one.id,
        "account_id": call.whop.tables.account.id,
        "company_id": call.whop.tables.account.id,
        "custom_name": one.custom_name,
        "customer_user": {"id": person.id, "username": person.username, "name": person.name},
        "last_message_at": iso(said[-1].created_at) if said else None,
        "resolved_at": None,
        "created_at": when(one.created_at),
    }


PATH = "/support_channels"
_older = partial(Operation, older=True, keyless=True)

OPERATIONS = (
    _older("support_channels.list", "GET", PATH, ("support_chat:read",), listing),
    _older("support_channels.create", "POST", PATH, ("support_chat:create",), create),
)
