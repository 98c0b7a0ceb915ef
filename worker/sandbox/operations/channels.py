"""Chat channels and their settings; a channel answers to its own id and to its experience's."""

from functools import partial

from worker.sandbox import bodies, shapes
from worker.sandbox.call import Call, Operation
from worker.sandbox.pages import paginate
from worker.sandbox.records import Channel
from worker.sandbox.shapes import Json


def listing(call: Call) -> Json:
    """List the account's channels."""
    mine, product_id = call.account(required=True), call.one("product_id")
    tables = call.whop.tables
    rows = (
        chat
        for chat in tables.channels.values()
        if mine
        and (product_id is None or product_id in tables.experiences[chat.experience_id].product_ids)
    )
    page = paginate(rows, lambda chat: (chat.seq,), call.window())
    return page.json(lambda chat: _answer(call, chat))


def _answer(call: Call, chat: Channel) -> Json:
    return shapes.channel(call.whop.tables, chat, moderator=call.may("chat:moderate"))


def retrieve(call: Call) -> Json:
    """Read a channel's settings."""
    return _answer(call, call.whop.rooms.channel(call.id))


def update(call: Call) -> Json:
    """Change the settings that were sent."""
    return _answer(call, call.whop.rooms.update_channel(call.id, call.body(bodies.ChannelPatch)))


PATH = "/chat_channels/{id}"

_older = partial(Operation, older=True)

OPERATIONS = (
    _older("chat_channels.list", "GET", "/chat_channels", ("chat:read",), listing),
    _older("chat_channels.retrieve", "GET", PATH, ("chat:read",), retrieve),
    _older("chat_channels.update", "PATCH", PATH, ("chat:moderate",), update),
)
