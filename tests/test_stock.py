"""The stock of a plan that holds seats, whichever of its two senses Whop takes it in."""

import asyncio
from datetime import UTC, datetime, timedelta

import community
import pytest
from community import Clock
from hypothesis import given
from hypothesis import strategies as st
from test_lies import passes

from worker.commands import report
from worker.policy.stock import LONGEST, SETTLED, Sales, Stock, after, is_due, refused, step
from worker.sandbox.faults import Failure
from worker.sandbox.refusals import Unprocessable

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
EVENT = """
[rooms.dinner]
name = "Dinner"
products = ["prod_ticket"]
occurrences = [{ starts = 2026-04-02T18:00:00, lasts = "3h" }]
"""


def sales(sold: int, shown: int | None = None, **more: object) -> Sales:
    return Sales(sold, sold, shown, **more)


LATER = START + timedelta(hours=1)
SET = Stock(40, 40, START)
"""What is known after the stock was set for 40 seats, of which none was sold."""


@pytest.mark.parametrize(
    ("before", "seats", "now_sold", "value", "sense"),
    [
        (None, 40, sales(0), 40, None),
        (None, 40, sales(10), 30, None),  # in doubt what sells fewer
        (SET, 60, sales(40, 0, bought=True), 20, "left"),
        (SET, 60, sales(40, 40, bought=True), 60, "total"),
        (SET, 60, sales(40, 40), 20, None),  # all were given away: it may mean either
        (SET, 60, sales(0, 40), 60, None),
        (SET, 30, sales(40, 40), 0, None),
        (SET, 40, sales(40, 40, bought=True), None, "total"),
        (Stock(40), 60, sales(40, 40, bought=True), 20, None),  # an older version set it
        (Stock(60, 20, START, 40, unclear=60), 60, sales(40, 60), None, "total"),  # by hand
        (Stock(60, 49, START, 10, checked=False), 60, sales(13, 48, missed=1), 47, "left"),
        (Stock(60, 49, START, 10, checked=False), 60, sales(13, 47, missed=1), None, "left"),
        (Stock(60, 50, START, 10, checked=False), 60, sales(13, 50, missed=1), 47, None),
        (Stock(3, 2, START, 1), 3, sales(2, 2, bought=True), 3, "total"),
    ],
)
def test_what_the_stock_is_set_to(before, seats, now_sold, value, sense):
    done = step(before, seats, now_sold, LATER)
    assert (done.value, done.sense) == (value, sense)


def test_while_a_purchase_may_not_show_yet_what_was_set_stands():
    before = Stock(40, 40, START)
    done = step(before, 60, sales(40, 40, young=True), LATER)
    assert done.value is None
    assert done.stands
    held = after(before, 60, sales(40, 40), done, LATER)
    assert (held.seats, held.value) == (40, 40)
    assert step(before, 50, sales(20, 20, young=True), LATER).value == 30  # it shows at once


def test_what_is_refused_is_tried_again_less_and_less_often():
    held, now, pauses = None, START, []
    for _ in range(9):
        held = refused(held, 40, "no", now)
        assert held.due
        pauses.append(held.due - now)
        assert not is_due(held, 40, held.due - timedelta(seconds=1))
        assert is_due(held, 40, held.due)
        now = held.due
    assert pauses[:3] == [timedelta(minutes=n) for n in (1, 2, 4)]
    assert pauses[-1] == LONGEST
    assert step(held, 40, sales(3), now).value == 37


class Shop:
    """A plan as Whop sells it, in either sense."""

    def __init__(self, means: str, sold: int) -> None:
        self.means, self.sold, self.stock = means, sold, None

    def buy(self) -> bool:
        if self.stock is None:
            self.sold += 1
            return True
        left = self.stock - (self.sold if self.means == "total" else 0)
        if left < 1:
            return False
        self.sold += 1
        self.stock -= self.means == "left"
        return True


@given(
    means=st.sampled_from(["left", "total"]),
    sold=st.integers(0, 5),
    changes=st.lists(
        st.tuples(st.integers(1, 20), st.integers(0, 25), st.integers(0, 2)), max_size=6
    ),
)
def test_no_sequence_of_sales_and_new_numbers_sells_more_than_the_seats(means, sold, changes):
    shop, held, now, most = Shop(means, sold), None, START, sold
    for seats, wanted, hours in changes:
        most = max(shop.sold, seats)
        for _ in range(3):
            now += timedelta(hours=hours)
            new = held is not None and shop.sold > held.on_plan
            old = new and hours > 0
            counted = Sales(shop.sold, shop.sold, shop.stock, bought=old, young=new and not old)
            done = step(held, seats, counted, now)
            if done.value is not None:
                shop.stock = done.value
            held = after(held, seats, counted, done, now)
        if not done.stands:
            bought = sum(shop.buy() for _ in range(wanted))
            assert bought == 0 or shop.sold <= most


def buys(seller, names) -> int:
    """Have people buy until Whop sells no more; returns how many got a ticket."""
    got = 0
    for name in names:
        try:
            seller.whop.memberships.buy("prod_ticket", name)
        except Unprocessable:
            break
        got += 1
    return got


@pytest.mark.parametrize("means", ["left", "total"])
def test_raising_the_seats_by_twenty_makes_twenty_more_sellable(redis_url, means):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, EVENT, clock=clock) as seller:
            seller.whop.faults.stock_means = means
            plan = next(iter(seller.whop.tables.plans.values()))
            rooms = EVENT + f'seats = 8\nplan = "{plan.id}"\n'
            await seller.restart(rooms)
            clock.at += timedelta(seconds=1)
            assert buys(seller, (f"a{n}" for n in range(20))) == 8
            await seller.settled()
            clock.at += SETTLED + timedelta(minutes=1)
            await seller.restart(rooms.replace("seats = 8", "seats = 12"))
            assert buys(seller, (f"b{n}" for n in range(20))) == 4
            await passes(seller, clock, 3600)
            assert buys(seller, (f"c{n}" for n in range(20))) == 0

    asyncio.run(main())


@pytest.mark.parametrize("means", ["left", "total"])
def test_tickets_that_were_sold_before_the_stock_was_set_are_among_the_seats(redis_url, means):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, EVENT, clock=clock) as seller:
            seller.whop.faults.stock_means = means
            plan = next(iter(seller.whop.tables.plans.values()))
            assert buys(seller, ["early", "bird"]) == 2
            await seller.settled()
            await seller.restart(EVENT + f'seats = 6\nplan = "{plan.id}"\n')
            clock.at += timedelta(seconds=1)
            first = buys(seller, (f"a{n}" for n in range(20)))
            assert first == (4 if means == "left" else 2)
            await seller.settled()
            await passes(seller, clock, 3600)
            assert first + buys(seller, (f"b{n}" for n in range(20))) == 4

    asyncio.run(main())


def test_where_whop_cannot_show_what_it_means_the_seller_is_told_what_to_do(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, EVENT, clock=clock) as seller:
            seller.whop.faults.stock_means = "total"
            plan = next(iter(seller.whop.tables.plans.values()))
            assert buys(seller, ["a", "b", "c", "d"]) == 4
            await seller.settled()
            await seller.restart(EVENT + f'seats = 6\nplan = "{plan.id}"\n')
            assert buys(seller, ["e"]) == 0
            held = (await seller.store.stocks(["dinner"]))["dinner"]
            assert held.unclear == 6
            assert "set the stock to 6" in await shown(seller)
            plan.stock = 6  # the seller does so
            await passes(seller, clock, 3600)
            held = (await seller.store.stocks(["dinner"]))["dinner"]
            assert (held.sense, plan.stock) == ("total", 6)
            assert "set the stock" not in await shown(seller)
            assert buys(seller, ["e", "f", "g"]) == 2

    asyncio.run(main())


async def shown(seller) -> str:
    """Return what `usher rooms` says of the seats."""
    lines, _ = await report.lines(seller.settings.rules, seller.settings.redis_url, seller.clock())
    (line,) = [one for one in lines if one.room == "dinner"]
    return dict(report._facts(line, seller.settings.rules.zone))["seats"]


def test_a_refusal_of_the_stock_is_tried_again_and_told(redis_url):
    async def main():
        clock = Clock(START)
        async with community.running(redis_url, EVENT, clock=clock) as seller:
            plan = next(iter(seller.whop.tables.plans.values()))
            seller.whop.faults.failures = [
                Failure(operation="variants.update", status=422, times=2)
            ]
            await seller.restart(EVENT + f'seats = 3\nplan = "{plan.id}"\n')
            assert plan.stock is None
            assert "Whop refuses to hold them" in await shown(seller)
            assert "room.stock_refused" in {what for what, _ in await seller.trail("room:dinner")}
            await passes(seller, clock, 600)
            assert plan.stock == 3
            assert "refuses" not in await shown(seller)

    asyncio.run(main())


def test_what_an_older_version_kept_is_read(redis_url):
    async def main():
        async with community.running(redis_url, EVENT) as seller:
            await seller.redis.set(f"{seller.prefix}stock:dinner", "40")
            assert (await seller.store.stocks(["dinner"]))["dinner"] == Stock(40)

    asyncio.run(main())
