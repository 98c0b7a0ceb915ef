"""Experiences, and the products that open them."""

from functools import partial

from worker.sandbox import bodies, shapes
from worker.sandbox.call import Call, Operation
from worker.sandbox.pages import paginate
from worker.sandbox.records import Experience
from worker.sandbox.shapes import Json


def listing(call: Call) -> Json:
    """List experiences; the rows do not say which products open them."""
    mine, product_id = call.account(required=True), call.one("product_id")
    app_id, span = call.one("app_id"), call.since()
    rows = (
        room
        for room in call.whop.tables.experiences.values()
        if mine
        and app_id in (None, room.app_id)
        and (product_id is None or product_id in room.product_ids)
        and room.created_at in span
    )
    page = paginate(rows, lambda room: (room.seq,), call.window())
    return page.json(lambda room: shapes.experience_row(call.whop.tables, room))


def _answer(call: Call, room: Experience) -> Json:
    return shapes.experience(call.whop.tables, room)


def create(call: Call) -> Json:
    """Create an experience; one of the Chat app comes with its channel."""
    return _answer(call, call.whop.rooms.create_experience(call.body(bodies.NewExperience)))


def retrieve(call: Call) -> Json:
    """Read one experience."""
    return _answer(call, call.whop.rooms.experience(call.id))


def update(call: Call) -> Json:
    """Change the fields that were sent."""
    patch = call.body(bodies.ExperiencePatch)
    return _answer(call, call.whop.rooms.update_experience(call.id, patch))


def delete(call: Call) -> bool:
    """Delete an experience; no product opens it any more."""
    call.whop.rooms.delete_experience(call.id)
    return True


def attach(call: Call) -> Json:
    """Let a product open it."""
    product_id = call.body(bodies.ProductLink).product_id
    return _answer(call, call.whop.rooms.attach(call.id, product_id))


def detach(call: Call) -> Json:
    """Let a product open it no more."""
    product_id = call.body(bodies.ProductLink).product_id
    return _answer(call, call.whop.rooms.detach(call.id, product_id))


PATH = "/experiences/{id}"

_older = partial(Operation, older=True, keyless=True)

OPERATIONS = (
    _older("experiences.list", "GET", "/experiences", (), listing),
    _older("experiences.create", "POST", "/experiences", ("experience:create",), create),
    _older("experiences.retrieve", "GET", PATH, (), retrieve),
    _older("experiences.update", "PATCH", PATH, ("experience:update",), update),
    _older("experiences.delete", "DELETE", PATH, ("experience:delete",), delete),
    _older("experiences.attach", "POST", f"{PATH}/attach", ("experience:attach",), attach),
    _older("experiences.detach", "POST", f"{PATH}/detach", ("experience:detach",), detach),
)
