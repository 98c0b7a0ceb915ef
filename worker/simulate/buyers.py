"""Buyers: when they come, what they buy, and what becomes of each purchase."""

import contextlib
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from worker.rules import Rules
from worker.sandbox.records import Invitation, Membership
from worker.sandbox.refusals import Refusal
from worker.sandbox.state import LocalWhop
from worker.simulate.agenda import Act, Agenda

DAY: Final = timedelta(days=1)
LAUNCH: Final = 0.15
"""The part of the buyers who come within one hour, when the seller launches something."""

TWO: Final = 0.25
"""The part of the buyers who come back for another product."""

LAPSE: Final = (0.2, 9.0)
"""Days for which a failed renewal may last: shorter and longer than a room's grace."""

INVITED: Final = timedelta(hours=6)
LINK: Final = re.compile(r"plan_\w+")


class Buyers:
    """Everybody who buys, from checkout on."""

    def __init__(
        self, rules: Rules, whop: LocalWhop, agenda: Agenda, rng: random.Random, *, end: datetime
    ) -> None:
        self._whop = whop
        self._agenda = agenda
        self._rng = rng
        self._end = end
        self._products = sorted({product for room in rules.rooms for product in room.products})
        self._answered: set[str] = set()
        self.counts: Counter[str] = Counter()
        self._fates: dict[str, Sequence[tuple[int, Callable[[Membership], None]]]] = {
            "renewal": (
                (34, self._stays),
                (16, self._leaves),
                (8, self._quits),
                (20, self._lapses),
                (9, self._refunded),
                (7, self._disputes),
                (6, self._returns),
            ),
            "one_time": (
                (72, self._stays),
                (5, self._quits),
                (11, self._refunded),
                (7, self._disputes),
                (5, self._returns),
            ),
        }
        if any(room.grant in {"invite", "link"} for room in rules.rooms):
            self._later(0.0, self._read_invitations)

    def arrive(self, start: datetime, buyers: int) -> None:
        """Enter the arrivals of so many buyers between the start and the end."""
        span = self._end - start
        launch = start + span * self._rng.uniform(0.1, 0.5)
        for n in range(buyers):
            when = start + span * self._rng.random()
            if self._rng.random() < LAUNCH:
                when = launch + timedelta(hours=1) * self._rng.random()
            self._agenda.at(when, self._visit(f"buyer{n + 1}"))

    def _visit(self, name: str) -> Act:
        def visit() -> None:
            first, *others = self._rng.sample(self._products, len(self._products))
            self._buy(first, name)
            if others and self._rng.random() < TWO:
                self._later(self._days(0.1, 60), lambda: self._buy(others[0], name))

        return visit

    def _buy(self, product: str, name: str) -> None:
        plans = self._whop.catalog.plans_of(product)
        try:
            held = self._whop.memberships.buy(product, name, plan_id=self._rng.choice(plans).id)
        except Refusal:
            self.counts["sold out"] += 1
            return
        self.counts["purchases"] += 1
        fates = self._fates[self._whop.catalog.plan(held.plan_id).plan_type]
        weights = [weight for weight, _ in fates]
        self._rng.choices([fate for _, fate in fates], weights)[0](held)

    def _days(self, least: float, most: float) -> float:
        """Return a number of days between two, and within what is left of the simulation."""
        left = (self._end - self._whop.now()) / DAY
        return self._rng.uniform(least, max(least, min(most, left)))

    def _later(self, days: float, act: Act) -> None:
        """Enter an act so many days from now; what Whop refuses by then does not happen."""

        def willing() -> None:
            with contextlib.suppress(Refusal):
                act()

        self._agenda.at(self._whop.now() + timedelta(days=days), willing)

    # --- what may become of a purchase

    def _stays(self, held: Membership) -> None:
        """Keep it."""

    def _leaves(self, held: Membership) -> None:
        """Cancel at the period's end."""
        self._later(self._days(1, 150), lambda: self._cancel_at_end(held))

    def _cancel_at_end(self, held: Membership) -> None:
        self._whop.memberships.cancel(held.id, at_period_end=True)
        self.counts["cancelled at the period's end"] += 1

    def _quits(self, held: Membership) -> None:
        """Cancel at once."""
        self._later(self._days(0.01, 120), lambda: self._cancel(held))

    def _cancel(self, held: Membership) -> None:
        self._whop.memberships.cancel(held.id)
        self.counts["cancelled at once"] += 1

    def _lapses(self, held: Membership) -> None:
        """Fail to renew; the card is mended after some days, or the membership ends."""
        self._later(self._days(1, 150), lambda: self._fail(held))

    def _fail(self, held: Membership) -> None:
        if held.status != "active":
            return
        self._whop.memberships.set_status(held.id, "past_due")
        self.counts["failed renewals"] += 1
        status = self._rng.choice(("active", "active", "canceled"))
        self._later(self._days(*LAPSE), lambda: self._resolve(held, status))

    def _resolve(self, held: Membership, status: str) -> None:
        if held.status == "past_due":
            self._whop.memberships.set_status(held.id, status)

    def _refunded(self, held: Membership) -> None:
        """Get the money back; in half of the cases the membership ends with it."""
        self._later(self._days(0.05, 25), lambda: self._refund(held))

    def _refund(self, held: Membership) -> None:
        self._whop.till.refund(held.id)
        self.counts["refunds"] += 1
        if self._rng.random() < 0.5 and not held.ended:  # noqa: PLR2004 - half
            self._whop.memberships.cancel(held.id)

    def _disputes(self, held: Membership) -> None:
        """Dispute a payment; the bank decides some weeks later."""
        self._later(self._days(1, 40), lambda: self._dispute(held))

    def _dispute(self, held: Membership) -> None:
        dispute = self._whop.till.dispute(held.id)
        self.counts["disputes"] += 1
        verdict = self._rng.choice(("won", "lost"))
        self._later(self._days(3, 25), lambda: self._decide(dispute.id, verdict))

    def _decide(self, dispute: str, verdict: str) -> None:
        self._whop.till.decide(dispute, verdict)

    def _returns(self, held: Membership) -> None:
        """Cancel at once, and buy the same product again: all on one day, or weeks later."""
        gone = self._days(0.01, self._rng.choice((0.4, 60)))
        back = self._days(0.001, self._rng.choice((0.4, 30)))
        name = self._whop.tables.users[held.user_id or ""].username
        self._later(gone, lambda: self._cancel(held))
        self._later(gone + back, lambda: self._buy(held.product_id, name))

    # --- invitations

    def _read_invitations(self) -> None:
        """Read the mail: most invitations are accepted, and links followed, within a day."""
        for invitation in self._whop.tables.invitations.values():
            if invitation.id not in self._answered:
                self._answered.add(invitation.id)
                if self._rng.random() < 0.9:  # noqa: PLR2004 - most
                    self._later(self._days(0.01, 1), self._accept(invitation))
        for chat in self._whop.tables.support_channels.values():
            for said in self._whop.rooms.said_in(chat.id):
                plan = LINK.search(said.content)
                if plan and said.id not in self._answered:
                    self._answered.add(said.id)
                    if self._rng.random() < 0.9:  # noqa: PLR2004 - most
                        self._later(self._days(0.01, 0.9), self._follow(plan[0], chat.user_id))
        self._agenda.at(self._whop.now() + INVITED, self._read_invitations)

    def _follow(self, plan: str, user: str) -> Act:
        def follow() -> None:
            product = self._whop.catalog.plan(plan).product_id
            self._whop.memberships.buy(product, user, plan_id=plan)

        return follow

    def _accept(self, invitation: Invitation) -> Act:
        def accept() -> None:
            self._whop.memberships.accept(invitation.id)

        return accept
