"""Products and their plans (variants)."""

import re

from worker.sandbox import bodies
from worker.sandbox.core import Core
from worker.sandbox.records import Plan, Product
from worker.sandbox.refusals import Conflict, Unprocessable
from worker.sandbox.tables import find

METADATA_KEY = 100
METADATA_VALUE = 500
MONTH = 30


class Catalog:
    """What the seller sells."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def product(self, product_id: str) -> Product:
        """Return a product."""
        return find(self._core.tables.products, product_id, "Product")

    def create_product(self, wanted: bodies.NewProduct, *, given_id: str | None = None) -> Product:
        """Create a product; `given_id` is for seeds, Whop makes its own."""
        check_metadata(wanted.metadata)
        product = Product(
            **self._core.stamp("prod_", given_id),
            title=wanted.title,
            route=wanted.route or _route(wanted.title, self._core.tables.seq),
            visibility=wanted.visibility,
            headline=wanted.headline,
            description=wanted.description,
            labels=wanted.labels,
            metadata=wanted.metadata,
            send_welcome_message=wanted.send_welcome_message,
        )
        self._core.tables.products[product.id] = product
        self._core.touch()
        return product

    def update_product(self, product_id: str, patch: bodies.ProductPatch) -> Product:
        """Change the fields that were sent; metadata is replaced."""
        product = self.product(product_id)
        changes = bodies.sent(patch)
        check_metadata(changes.get("metadata", {}))
        for name, value in changes.items():
            setattr(product, name, value)
        self._core.touch(product)
        return product

    def delete_product(self, product_id: str) -> None:
        """Delete a product that nobody ever had (Whop: Products API); its rooms lose it."""
        product = self.product(product_id)
        tables = self._core.tables
        if self._core.index.by_product[product.id]:
            raise Conflict("Cannot delete a product that has memberships; archive it instead")
        del tables.products[product.id]
        for plan in self.plans_of(product.id):
            plan.deleted = True
        for room in tables.experiences.values():
            room.product_ids = [other for other in room.product_ids if other != product.id]
        self._core.touch()

    def plan(self, plan_id: str) -> Plan:
        """Return a plan that has not been deleted."""
        plan = find(self._core.tables.plans, plan_id, "Variant")
        return find({} if plan.deleted else {plan.id: plan}, plan_id, "Variant")

    def plans_of(self, product_id: str) -> list[Plan]:
        """Return the plans that sell a product, oldest first."""
        plans = self._core.tables.plans.values()
        return [plan for plan in plans if plan.product_id == product_id and not plan.deleted]

    def create_plan(self, wanted: bodies.NewPlan, *, given_id: str | None = None) -> Plan:
        """Create a plan; a renewal plan without a period renews every 30 days."""
        self.product(wanted.product_id)
        check_metadata(wanted.metadata)
        plan = Plan(
            **self._core.stamp("plan_", given_id),
            product_id=wanted.product_id,
            plan_type=wanted.plan_type,
            initial_price=wanted.initial_price,
            renewal_price=wanted.renewal_price if wanted.plan_type == "renewal" else 0.0,
            currency=wanted.currency,
            billing_period=_period(wanted),
            expiration_days=wanted.expiration_days,
            trial_period_days=wanted.trial_period_days,
            visibility=wanted.visibility,
            release_method=wanted.release_method,
            unlimited_stock=wanted.unlimited_stock and wanted.stock is None,
            stock=wanted.stock,
            title=wanted.title,
            description=wanted.description,
            internal_notes=wanted.internal_notes,
            metadata=wanted.metadata,
        )
        self._core.tables.plans[plan.id] = plan
        self._core.touch()
        return plan

    def update_plan(self, plan_id: str, patch: bodies.PlanPatch) -> Plan:
        """Change the fields that were sent."""
        plan = self.plan(plan_id)
        changes = bodies.sent(patch)
        check_metadata(changes.get("metadata", {}))
        for name, value in changes.items():
            setattr(plan, name, value)
        self._core.touch(plan)
        return plan

    def delete_plan(self, plan_id: str) -> None:
        """Delete a plan; its memberships stay (Whop: Variants API), and so does our record."""
        self.plan(plan_id).deleted = True
        self._core.touch()


def check_metadata(metadata: dict[str, object]) -> None:
    """Hold metadata to Whop's bounds: keys of 100 characters, values of 500.

    Raises:
        Unprocessable: a key or a value is longer.
    """
    for key, value in metadata.items():
        if len(key) > METADATA_KEY or len(str(value)) > METADATA_VALUE:
            raise Unprocessable(f"metadata: {key[:METADATA_KEY]!r} is too long")


def _period(wanted: bodies.NewPlan) -> int | None:
    return wanted.billing_period or MONTH if wanted.plan_type == "renewal" else None


def _route(title: str, seq: int) -> str:
    """Make a URL slug that no other product has."""
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return f"{slug or 'product'}-{seq}"
