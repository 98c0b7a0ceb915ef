"""Messages in channels."""

from functools import partial

from worker.sandbox import bodies, shapes
from worker.sandbox.call import Call, Operation
from worker.sandbox.pages import paginate
from worker.sandbox.records import Message
from worker.sandbox.refusals import BadRequest
from worker.sandbox.shapes import Json


def listing(call: Call) -> Json:
    """List a channel's messages, the newest first."""
    channel_id = call.one("channel_id")
    if channel_id is None:
        raise BadRequest("channel_id is required")
    rows = call.whop.rooms.said_in(channel_id)
    page = paginate(rows, lambda said: (said.seq,), call.window())
    return page.json(lambda said: _answer(call, said))


def _answer(call: Call, said: Message) -> Json:
    return shapes.message(call.whop.tables, said)


def create(call: Call) -> Json:
    """Write a message."""
    wanted = call.body(bodies.NewMessage)
    support = wanted.channel_id in call.whop.tables.support_channels
    call.need(SUPPORT if support else WRITE[0])
    return _answer(call, call.whop.rooms.post(wanted))


def retrieve(call: Call) -> Json:
    """Read one message."""
    return _answer(call, call.whop.rooms.message(call.id))


def update(call: Call) -> Json:
    """Edit, pin or unpin a message."""
    return _answer(call, call.whop.rooms.update_message(call.id, call.body(bodies.MessagePatch)))


def delete(call: Call) -> bool:
    """Delete a message."""
    call.whop.rooms.delete_message(call.id)
    return True


PATH = "/messages/{id}"
WRITE = ("chat:message:create",)
SUPPORT = "support_chat:message:create"

_older = partial(Operation, older=True, keyless=True)

OPERATIONS = (
    _older("messages.list", "GET", "/messages", ("chat:read",), listing),
    _older("messages.create", "POST", "/messages", (), create),
    _older("messages.retrieve", "GET", PATH, ("chat:read",), retrieve),
    _older("messages.update", "PATCH", PATH, WRITE, update),
    _older("messages.delete", "DELETE", PATH, WRITE, delete),
)
