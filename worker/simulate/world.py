"""One seller's community in virtual time: from one instant at which something happens to the next.

Everything of Usher's is the real thing: the receiver, the inbox, the jobs, what is kept in Redis.
What is not: the sockets, arq's loop, and the hours in between.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from webhooks.app import create_app
from webhooks.inbox import Inbox
from webhooks.signature import Secrets
from worker.rules import Rules
from worker.sandbox import app as local_whop
from worker.sandbox.bodies import NewPlan
from worker.sandbox.journal import Journal
from worker.sandbox.state import LocalWhop, SeedProduct, seed
from worker.simulate.agenda import Agenda, Clock
from worker.simulate.buyers import Buyers
from worker.simulate.crew import API_KEY, Crew
from worker.simulate.inspector import Inspector
from worker.simulate.laws import DAY, Judge
from worker.simulate.standing import SEEN
from worker.simulate.troubles import Troubles
from worker.simulate.wire import HOOK_URL, Courier, Line
from worker.store import Store

SECRET: Final = "ws_simulated"  # noqa: S105 - of a Whop that is not there
RESTLESS: Final = 100
"""Rounds of work at one instant after which something must be wrong."""

MONTH: Final = 30 * DAY
"""How often `usher verify` is asked: on the first day after that on which nothing is on its way."""

TAIL: Final = timedelta(hours=2)
"""How long the world goes on after its last act, so that what is under way comes to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a simulation is about: the rules, the days from a start, the buyers, the seed."""

    rules: Rules
    start: datetime
    days: int
    buyers: int
    seed: int

    @property
    def end(self) -> datetime:
        """When it is over."""
        return self.start + timedelta(days=self.days)


class World:
    """The local Whop, the receiver, the worker, and all that happens to them."""

    def __init__(self, setting: Setting, redis: Any, *, worker_rules: Rules | None = None) -> None:
        """Build it on an empty Redis; a test may give the worker other rules than the judge."""
        rules, dice = setting.rules, _dice(setting.seed)
        self.setting = setting
        self.clock = Clock(setting.start)
        self.journal = Journal()
        self.whop = LocalWhop(rules.account, clock=self.clock, rng=dice())
        _stock(self.whop, rules)
        self.inbox = Inbox(redis, rules.account)
        receiver = create_app(
            inbox=self.inbox,
            account=rules.account,
            secrets=Secrets([SECRET]),
            clock=self.clock.unix,
        )
        app = local_whop.create_app(self.whop, journal=self.journal)
        self.line = Line(app)
        self.courier = Courier(self.whop, receiver, self.clock)
        self.crew = Crew(worker_rules or rules, redis, self.line, self.clock, dice())
        self.inspector = Inspector(worker_rules or rules, redis, self.whop, app, self.clock)
        self.agenda = Agenda()
        self.buyers = Buyers(rules, self.whop, self.agenda, dice(), end=setting.end)
        self.troubles = Troubles(
            self.whop, self.agenda, dice(), crew=self.crew, courier=self.courier, line=self.line
        )
        store = Store(redis, self.inbox.prefix)
        self.judge = Judge(rules, self.whop, store, self.troubles.excuses)
        self.instants = 0
        self._verified = setting.start

    async def live(self, day_over: Callable[[int], None]) -> None:
        """Live through all days; `day_over` is told how many are over."""
        self.buyers.arrive(self.setting.start, self.setting.buyers)
        self.troubles.brew(self.setting.start, self.setting.days)
        await self.crew.start()
        for day in range(self.setting.days):
            begins = self.setting.start + day * DAY
            await self._day(begins, begins + DAY)
            day_over(day + 1)
            if self.judge.enough:
                break
        if not self.judge.enough:
            await self._come_to_rest()
        self.judge.turns.end()

    async def _come_to_rest(self) -> None:
        """Go on until nothing is under way any more; then `usher verify` must be content, too."""
        begins = self.setting.end
        over = self.troubles.excuses.stretch(begins, TAIL)
        while begins < over:
            ends = min(begins + DAY, over)
            await self._day(begins, ends)
            begins = ends
        await self.judge.begin_day(self.clock.now)
        await self._verify()

    async def _day(self, begins: datetime, ends: datetime) -> None:
        await self._until(begins)
        await self.crew.housekeeping()
        await self._settle()
        await self.judge.begin_day(begins)
        if begins - self._verified >= MONTH and self._calm():
            await self._verify()
        await self._until(ends)

    def _calm(self) -> bool:
        """Say whether nothing is on its way to the worker, and it is at its work."""
        now, excuses = self.clock.now, self.troubles.excuses
        edited = max(excuses.edits.values(), default=self.setting.start)
        return (
            self.crew.tools is not None
            and not len(self.whop.outbox)
            and excuses.stretch(now, timedelta(0)) == now
            and now - edited >= SEEN
        )

    async def _verify(self) -> None:
        self._verified = self.clock.now
        if not self.judge.enough:
            self.judge.verified(await self.inspector.look(), self.clock.now)

    async def _until(self, end: datetime) -> None:
        """Go from one instant to the next, up to an instant and not at it."""
        while (at := await self._next()) is not None and at < end and not self.judge.enough:
            self.clock.now = max(at, self.clock.now)
            await self._settle()
        self.clock.now = max(end, self.clock.now)

    async def _next(self) -> datetime | None:
        instants = (
            self.agenda.next(),
            self.whop.outbox.next_due(),
            self.whop.memberships.next_period_end(),
            self.judge.next(),
            await self.crew.next(),
        )
        return min((at for at in instants if at is not None), default=None)

    async def _settle(self) -> None:
        """Let everything happen that is due, until nothing is; then the judge looks."""
        self.instants += 1
        for _ in range(RESTLESS):
            busy = self.agenda.do(self.clock.now)
            self.whop.tick()
            busy |= await self.courier.deliver()
            done = await self.crew.work()
            if not (busy or done):
                break
        else:
            self.judge.restless(self.clock.now, done)
        await self.judge.look(self.clock.now)

    async def close(self) -> None:
        """Close what is open."""
        await self.crew.close()
        await self.inspector.close()
        await self.inbox.close()


def _dice(seed: int) -> Callable[[], random.Random]:
    """Return a maker of independent sources of chance, the same ones for the same seed."""
    root = random.Random(seed)  # noqa: S311 - it is to be repeatable
    return lambda: random.Random(root.getrandbits(64))  # noqa: S311 - as above


def _stock(whop: LocalWhop, rules: Rules) -> None:
    """Have the local Whop sell what the rules name: by the month what opens a standing room."""
    standing = [room for room in rules.rooms if not (room.cohort or room.schedule.eventful)]
    monthly = {product for room in standing for product in room.products}
    products = sorted({product for room in rules.rooms for product in room.products})
    seed(
        whop,
        [
            SeedProduct(
                id=id_,
                title=id_.removeprefix("prod_").title(),
                plan_type="renewal" if id_ in monthly else "one_time",
            )
            for id_ in products
        ],
        api_key=API_KEY,
        webhook_url=HOOK_URL,
        webhook_secret=SECRET,
    )
    for room in rules.rooms:
        if room.plan:  # its seats are sold by this plan alone
            for plan in whop.catalog.plans_of(room.products[0]):
                whop.catalog.delete_plan(plan.id)
            wanted = NewPlan(product_id=room.products[0], initial_price=49.0, title="Seat")
            whop.catalog.create_plan(wanted, given_id=room.plan)
