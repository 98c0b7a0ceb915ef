"""Products."""

from worker.sandbox import bodies, shapes
from worker.sandbox.call import Call, Operation
from worker.sandbox.pages import paginate
from worker.sandbox.records import Product
from worker.sandbox.shapes import Json


def listing(call: Call) -> Json:
    """List products, hidden ones too."""
    mine, span = call.account(), call.since()
    visibilities, query = call.many("visibilities"), (call.one("query") or "").lower()
    rows = (
        item
        for item in call.whop.tables.products.values()
        if mine
        and (not visibilities or item.visibility in visibilities)
        and query in item.title.lower()
        and item.created_at in span
    )
    page = paginate(rows, lambda item: (item.seq,), call.window())
    return page.json(lambda item: shapes.product_row(call.whop.tables, call.whop.index, item))


def _answer(call: Call, item: Product) -> Json:
    return shapes.product(call.whop.tables, call.whop.index, item)


def create(call: Call) -> Json:
    """Create a product."""
    wanted = call.body(bodies.NewProduct)
    call.own_account(wanted.account_id)
    return _answer(call, call.whop.catalog.create_product(wanted))


def retrieve(call: Call) -> Json:
    """Read one product; anybody may."""
    return _answer(call, call.whop.catalog.product(call.id))


def update(call: Call) -> Json:
    """Change the fields that were sent."""
    patch = call.body(bodies.ProductPatch)
    return _answer(call, call.whop.catalog.update_product(call.id, patch))


def delete(call: Call) -> Json:
    """Delete a product without memberships."""
    call.whop.catalog.delete_product(call.id)
    return {"id": call.id, "deleted": True}


PATH = "/products/{id}"
READ = ("access_pass:basic:read",)

OPERATIONS = (
    Operation("products.list", "GET", "/products", READ, listing),
    Operation("products.create", "POST", "/products", ("access_pass:create",), create),
    Operation("products.retrieve", "GET", PATH, (), retrieve, public=True),
    Operation("products.update", "PATCH", PATH, ("access_pass:update",), update),
    Operation("products.delete", "DELETE", PATH, ("access_pass:delete",), delete),
)
