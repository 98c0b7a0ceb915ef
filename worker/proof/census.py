"""Everybody who has anything to do with our rooms on Whop, in as few calls as pages need.

Rows are kept by user, as far as policy reads them; the words that they share are kept once.
"""

import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from worker.doubts import LONG_AGO
from worker.policy.access import Hidden
from worker.policy.refunds import asks
from worker.policy.rooms import Room, split
from worker.provision import ROOM_KEY
from worker.tools import Tools
from worker.whop.types import Membership, Payment

AT_ONCE: Final = 50
"""Products that one call asks for: their ids stand in its URL."""


@dataclass(slots=True)
class Census:
    """Memberships and payments by user; `rows` counts the memberships."""

    memberships: dict[str, list[Membership]] = field(default_factory=dict)
    payments: dict[str, list[Payment]] = field(default_factory=dict)
    rows: int = 0

    def add(self, one: Membership) -> None:
        """Take in a membership; one without a user is nobody's yet."""
        self.rows += 1
        if one.user:
            user, product, plan = (
                sys.intern(word or "") for word in (one.user, one.product, one.plan)
            )
            status = sys.intern(one.status)
            lean = replace(one, user=user, product=product, plan=plan, status=status)
            self.memberships.setdefault(user, []).append(lean)

    def payments_of(self, user: str) -> list[Payment]:
        """Return a user's payments, the oldest first."""
        return sorted(self.payments.get(user, ()), key=lambda one: one.created_at or LONG_AGO)


async def count(
    tools: Tools, rooms: Sequence[Room], hidden: Iterable[str], user: str | None = None
) -> Census:
    """Walk through all memberships of what sells or carries these rooms, of every status.

    The payments, too, where a room's rules ask what became of them. With a user: only theirs.
    """
    census, sold = Census(), dict.fromkeys(product for r in rooms for product in r.products)
    products = list(dict.fromkeys([*sold, *hidden]))
    if user:
        for one in await tools.whop.memberships(user):
            if one.product in products:
                census.add(one)
    else:
        for n in range(0, len(products), AT_ONCE):
            async for one in tools.whop.memberships_of(products[n : n + AT_ONCE]):
                census.add(one)
    doubted = dict.fromkeys(p for r in rooms if asks(r) for p in r.products)
    async for payment in _payments(tools, list(doubted), user):
        whose = payment.user or ""
        if whose and payment.product in doubted:
            census.payments.setdefault(whose, []).append(payment)
    return census


async def _payments(
    tools: Tools, products: Sequence[str], user: str | None
) -> AsyncIterator[Payment]:
    if user and products:
        async for payment in tools.whop.payments(user=user):
            yield payment
        return
    for product in products:
        async for payment in tools.whop.payments(product=product):
            yield payment


async def cohorts(tools: Tools, rooms: Sequence[Room]) -> list[tuple[str, str]]:
    """Return the hidden products that were made for the cohorts of some rooms, with their keys.

    In Whop's order; two products of one key are both there.
    """
    keys = {key: room.key for room in rooms if room.cohort for key in room.keys}
    if not keys:
        return []
    found: list[tuple[str, str]] = []
    async for product in tools.whop.products():
        key = product.metadata.get(ROOM_KEY)
        name, cohort = split(key) if isinstance(key, str) else ("", None)
        if name in keys and cohort:
            found.append((product.id, f"{keys[name]}/{cohort}"))
    return found


def by_product(hidden: Iterable[Hidden]) -> Mapping[str, Hidden]:
    """Return hidden products by their ids."""
    return {one.product: one for one in hidden}
