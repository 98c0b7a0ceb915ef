"""The stock of a plan that holds a room's seats: what to set it to, where it has two senses.

Whop calls it "maximum number of units available for purchase". That may be what is `left`, which
each purchase lessens, or the `total` that is ever sold. What is set is never more than is right in
the sense that sells more, until Whop itself has shown which one it means.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

Sense = Literal["left", "total"]

SETTLED: Final = timedelta(minutes=15)
"""How long a purchase may take to show in a plan's stock: Whop's lists may be behind."""

RECHECK: Final = timedelta(minutes=2)
"""When to count again after the stock was set: somebody may have bought in that moment."""

LOOK_AGAIN: Final = timedelta(minutes=20)
"""When to look again which sense it is, while nothing has shown it."""

FIRST: Final = timedelta(minutes=1)
"""When to try again what Whop refused; each time twice as long, up to `LONGEST`."""

LONGEST: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Stock:
    """What is known of the stock of a room's plan.

    `seats` are those of the rules for which it was set, and `value` what it was set to, at `at`,
    when `on_plan` tickets of the plan were running. `sense` is what Whop has shown its stock to
    mean. `due` is when to look again; `refused` counts refusals in a row, `why` is the last one's.
    `unclear` is what a person may have to set by hand.
    """

    seats: int
    value: int | None = None
    at: datetime | None = None
    on_plan: int = 0
    sense: Sense | None = None
    checked: bool = True
    due: datetime | None = None
    refused: int = 0
    why: str = ""
    unclear: int | None = None


@dataclass(frozen=True, slots=True)
class Sales:
    """What is sold: to how many people in all, and how many tickets of the plan that run.

    `shown` is the plan's stock as Whop shows it; None where it is unlimited or not told. `bought`
    says that a ticket of the plan was paid for since the stock was set, so long ago that the stock
    must show it, and `young` that one was bought too lately for that. `missed` were bought before
    the stock was set, and were not known then.
    """

    sold: int
    on_plan: int
    shown: int | None = None
    bought: bool = False
    young: bool = False
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What to do: set the stock to `value`, or leave it (None), and when to look again.

    `stands` says that it is left although the rules have another number by now.
    """

    value: int | None
    sense: Sense | None = None
    due: datetime | None = None
    stands: bool = False


def worth(seats: int, sales: Sales, sense: Sense | None) -> int:
    """Return the stock by which what is left of the seats can be sold, and no more.

    In doubt it is what is left: in the other sense that sells fewer, and never more.
    """
    left = max(0, seats - sales.sold)
    return sales.on_plan + left if sense == "total" else left


def shows(before: Stock, sales: Sales) -> Sense | None:
    """Say in which sense Whop takes the stock, if what became of it since it was set shows that."""
    if before.sense or before.value is None or sales.shown is None:
        return before.sense
    if sales.shown < before.value:
        return "left"
    if sales.shown == before.value and sales.bought:
        return "total"
    # A person set what they were told to set where Whop sold nothing.
    return "total" if before.unclear is not None and sales.shown == before.unclear else None


def is_due(before: Stock | None, seats: int, now: datetime) -> bool:
    """Say whether the stock wants a look."""
    if before is None or (before.due is not None and before.due <= now):
        return True
    return before.seats != seats and not before.refused


def step(before: Stock | None, seats: int, sales: Sales, now: datetime) -> Step:
    """Say what to do about the stock now."""
    if before is None:
        return Step(worth(seats, sales, None))
    sense = shows(before, sales)
    wanted, changed = worth(seats, sales, sense), before.seats != seats
    if sense is None and sales.young and seats > before.seats:
        # What was bought a moment ago is about to show it.
        return Step(None, None, now + LOOK_AGAIN, stands=True)
    learned = sense == "total" and before.sense is None and sales.shown != wanted
    if changed or before.refused or learned:
        return Step(wanted, sense)
    if not before.checked and sales.missed and (sales.shown or 0) > wanted:
        return Step(wanted, sense)
    return Step(None, sense, None if sense or not before.on_plan else now + LOOK_AGAIN)


def after(before: Stock | None, seats: int, sales: Sales, done: Step, now: datetime) -> Stock:
    """Return what is known of the stock once a step was done."""
    if done.stands and before:
        return replace(before, due=done.due)
    if done.value is None and before:
        return replace(before, sense=done.sense, due=done.due, checked=True)
    made = Stock(seats, done.value, now, sales.on_plan, done.sense, checked=False)
    left = max(0, seats - sales.sold)
    stuck = done.sense is None and left and (done.value or 0) <= sales.on_plan
    return replace(made, due=now + RECHECK, unclear=sales.on_plan + left if stuck else None)


def refused(before: Stock | None, seats: int, why: str, now: datetime) -> Stock:
    """Return what is known of the stock where Whop would not have it set."""
    times = before.refused + 1 if before else 1
    pause: timedelta = min(FIRST * 2.0 ** min(times - 1, 12), LONGEST)
    return replace(before or Stock(seats), due=now + pause, refused=times, why=why)
