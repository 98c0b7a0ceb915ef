"""Plans, which Whop now calls variants; `/plans` is the deprecated alias, with the same bodies."""

from worker.sandbox import bodies, shapes
from worker.sandbox.call import Call, Operation
from worker.sandbox.pages import paginate
from worker.sandbox.records import Plan
from worker.sandbox.shapes import Json


def listing(call: Call) -> Json:
    """List plans."""
    mine, span, products = call.account(), call.since(), call.many("product_ids")
    filters = {
        "visibility": call.many("visibilities"),
        "plan_type": call.many("plan_types"),
        "release_method": call.many("release_methods"),
    }
    rows = (
        plan
        for plan in call.whop.tables.plans.values()
        if mine
        and not plan.deleted
        and (not products or plan.product_id in products)
        and all(not wanted or getattr(plan, name) in wanted for name, wanted in filters.items())
        and plan.created_at in span
    )
    page = paginate(rows, lambda plan: (plan.seq,), call.window())
    return page.json(lambda plan: _answer(call, plan))


def _answer(call: Call, plan: Plan) -> Json:
    return shapes.variant(call.whop.tables, call.whop.index, plan)


def create(call: Call) -> Json:
    """Create a plan of a product."""
    wanted = call.body(bodies.NewPlan)
    call.own_account(wanted.account_id)
    return _answer(call, call.whop.catalog.create_plan(wanted))


def retrieve(call: Call) -> Json:
    """Read one plan."""
    return _answer(call, call.whop.catalog.plan(call.id))


def update(call: Call) -> Json:
    """Change the fields that were sent."""
    return _answer(call, call.whop.catalog.update_plan(call.id, call.body(bodies.PlanPatch)))


def delete(call: Call) -> Json:
    """Delete a plan; its memberships stay."""
    call.whop.catalog.delete_plan(call.id)
    return {"id": call.id, "deleted": True}


def _operations(noun: str) -> tuple[Operation, ...]:
    path = f"/{noun}/{{id}}"
    return (
        Operation(f"{noun}.list", "GET", f"/{noun}", ("plan:basic:read",), listing),
        Operation(f"{noun}.create", "POST", f"/{noun}", ("plan:create",), create),
        Operation(f"{noun}.retrieve", "GET", path, ("plan:basic:read",), retrieve),
        Operation(f"{noun}.update", "PATCH", path, ("plan:update",), update),
        Operation(f"{noun}.delete", "DELETE", path, ("plan:delete",), delete),
    )


OPERATIONS = (*_operations("variants"), *_operations("plans"))
