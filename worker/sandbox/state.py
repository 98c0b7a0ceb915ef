"""The local Whop itself: one seller's account, as a state machine without I/O.

Time and randomness are handed in, so that a test, or a run with a virtual clock, decides both.
What happens to others is collected in `outbox`; something else delivers it.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from random import Random

import msgspec

from worker.sandbox import bodies
from worker.sandbox.catalog import Catalog
from worker.sandbox.core import Core
from worker.sandbox.faults import Faults
from worker.sandbox.hooks import Hooks
from worker.sandbox.memberships import Memberships
from worker.sandbox.outbox import Outbox
from worker.sandbox.people import People
from worker.sandbox.records import Account, Key, Webhook
from worker.sandbox.rooms import Rooms
from worker.sandbox.tables import Index, Tables
from worker.sandbox.till import Till

LATEST = "2026-10-15-1"
"""The Api-Version-Date whose shapes the local Whop speaks."""
USHER_EVENTS = (
    "payment.succeeded",
    "payment.failed",
    "membership.activated",
    "membership.deactivated",
    "membership.updated",
    "membership.cancel_at_period_end_changed",
    "refund.created",
    "refund.updated",
    "dispute.created",
    "dispute.updated",
    "chat.message.created",
)


class LocalWhop:
    """One account with everything in it, by the nouns that Whop uses.

    `catalog` has products and plans, `rooms` experiences, channels and messages, `people` users,
    members and the team, `memberships` purchases and grants, `till` the money, `hooks` the
    webhooks; `outbox` is what goes to those, and `faults` what goes wrong.
    """

    def __init__(
        self,
        account_id: str,
        *,
        clock: Callable[[], datetime],
        rng: Random,
        title: str = "Local Whop",
        api_keys: Sequence[Key] = (),
    ) -> None:
        account = Account(id=account_id, title=title, route="local-whop", owner_id="")
        keys = {key.secret: key for key in api_keys}
        self.core = Core(Tables(account=account, keys=keys), clock=clock, rng=rng)
        self.catalog = Catalog(self.core)
        self.rooms = Rooms(self.core)
        self.people = People(self.core)
        self.till = Till(self.core)
        self.memberships = Memberships(self.core, self.catalog, self.people, self.till)
        self.hooks = Hooks(self.core)
        account.owner_id = self.people.add_admin("owner").id

    @property
    def tables(self) -> Tables:
        """Everything by id."""
        return self.core.tables

    @property
    def index(self) -> Index:
        """What is found without a scan."""
        return self.core.index

    @property
    def outbox(self) -> Outbox:
        """The outgoing webhooks."""
        return self.core.outbox

    @property
    def faults(self) -> Faults:
        """The switches for trouble."""
        return self.core.faults

    @property
    def revision(self) -> int:
        """A number that grows with every change."""
        return self.core.revision

    def now(self) -> datetime:
        """Return the time, from the clock that was handed in."""
        return self.core.now()

    def tick(self) -> None:
        """Let time do its work: renewals, expiries, cancellations that waited."""
        self.memberships.pass_time()

    def snapshot(self) -> bytes:
        """Return everything as JSON: the objects, the messages not yet delivered, the log.

        Answers kept for Idempotency-Keys and the counts of the quota are not in it.
        """
        self.core.outbox.store()
        return msgspec.json.encode(self.core.tables)

    def restore(self, saved: bytes) -> None:
        """Take over a snapshot, of the same account.

        Raises:
            ValueError: it belongs to another account.
        """
        tables = msgspec.json.decode(saved, type=Tables)
        if tables.account.id != self.core.tables.account.id:
            raise ValueError(f"the saved state belongs to {tables.account.id}")
        self.core.load(tables)


class SeedProduct(msgspec.Struct, kw_only=True, frozen=True):
    """A product that a seller would have made by hand: with one plan, monthly or bought once."""

    id: str
    title: str
    plan_type: str = "renewal"


PRICES = {
    "renewal": {"renewal_price": 29.0, "billing_period": 30},
    "one_time": {"initial_price": 49.0},
}


def seed(
    whop: LocalWhop,
    products: Sequence[SeedProduct] = (),
    *,
    api_key: str | None = None,
    webhook_url: str | None = None,
    webhook_secret: str | None = None,
    api_version_date: str | None = LATEST,
) -> None:
    """Make what is missing: the products, the key, the webhook; twice is once."""
    for product in products:
        if product.id not in whop.tables.products:
            _seed_product(whop, product)
    if api_key is not None and api_key not in whop.tables.keys:
        whop.tables.keys[api_key] = Key(secret=api_key)
        whop.core.touch()
    if webhook_url is not None and webhook_secret is not None:
        _seed_webhook(whop, webhook_url, webhook_secret, api_version_date)


def _seed_product(whop: LocalWhop, product: SeedProduct) -> None:
    made = whop.catalog.create_product(bodies.NewProduct(title=product.title), given_id=product.id)
    price = PRICES[product.plan_type]
    plan = {"product_id": made.id, "plan_type": product.plan_type, "title": "Standard"} | price
    whop.catalog.create_plan(msgspec.convert(plan, bodies.NewPlan))


def _seed_webhook(whop: LocalWhop, url: str, secret: str, pin: str | None) -> Webhook:
    """Register the webhook; one with the same URL takes the new secret."""
    for hook in whop.tables.webhooks.values():
        if hook.url == url:
            if hook.secret != secret:
                hook.secret = secret
                whop.core.touch(hook)
            return hook
    wanted = bodies.NewWebhook(url=url, events=list(USHER_EVENTS), api_version_date=pin)
    return whop.hooks.create(wanted, secret=secret)
