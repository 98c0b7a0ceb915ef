"""What Whop shows of one member, from its lists, its objects and its deliveries. Pure.

Whop's lists may be behind its own deliveries, leave rows out, or say nothing of what the key may
not see. So what was known of a purchase stands until Whop says in so many words that it has ended,
and what a delivery told stays a hint until a look shows it or contradicts it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Protocol, TypeVar

from worker.policy.access import ENDED, ENTITLING, PAST_DUE, Facts, entitlement
from worker.policy.news import Seen, Shown
from worker.policy.rooms import Room

FIRST: Final = timedelta(seconds=2)
"""When to look again at what Whop does not show yet; each time twice as long, up to `LONGEST`."""

LONGEST: Final = timedelta(minutes=15)
GIVE_UP: Final = timedelta(days=1)
"""How long Whop may leave out what it told before a person is asked to look."""

REFUSE: Final = timedelta(minutes=15)
"""How long what no account was named for may be missing on ours before it counts as another's."""

ABOUT: Final = frozenset({"membership", "payment"})
"""The deliveries that say that somebody should be in, or out; refunds are read from the payment."""


@dataclass(frozen=True, slots=True)
class Unshown:
    """What Whop said once and does not show: told by a delivery, or seen before and left out.

    `status` is None where any status that gives access will do: a payment says no more. `missing`
    says that it was seen before. `due` is when to look again; None once it was reported. With
    `no_account` the delivery named no account: it is ours only if what it tells is found here.
    """

    since: datetime
    looks: int = 0
    status: str | None = None
    updated_at: datetime | None = None
    product: str | None = None
    missing: bool = False
    due: datetime | None = None
    no_account: bool = False


class Hint(Protocol):
    """A delivery, as far as it is a hint."""

    @property
    def account(self) -> str | None:
        """The account that it names; where it names none it may be another's."""

    @property
    def about(self) -> str:
        """The kind of object that it speaks of."""

    @property
    def type(self) -> str:
        """Whop's name of the event."""

    @property
    def membership(self) -> str | None:
        """The membership that it speaks of."""

    @property
    def payment(self) -> str | None:
        """The payment that it speaks of."""

    @property
    def product(self) -> str | None:
        """The product that it speaks of."""

    @property
    def status(self) -> str | None:
        """The status that it says."""

    @property
    def updated_at(self) -> datetime | None:
        """When Whop last changed what it shows."""


S = TypeVar("S", bound=Shown)


def told(hints: Iterable[Hint], now: datetime) -> dict[str, Unshown]:
    """Return what deliveries say of memberships, by id, and of payments that name none."""
    said: dict[str, Unshown] = {}
    for hint in hints:
        if hint.about == "membership" and hint.membership:
            one = Unshown(
                now,
                0,
                hint.status,
                hint.updated_at,
                hint.product,
                no_account=hint.account is None,
            )
            said[hint.membership] = _later(said.get(hint.membership), one)
        elif hint.type == "payment.succeeded" and (hint.membership or hint.payment):
            one = Unshown(
                now, 0, None, hint.updated_at, hint.product, no_account=hint.account is None
            )
            said.setdefault(hint.membership or hint.payment or "", one)
    return said


def _later(one: Unshown | None, other: Unshown) -> Unshown:
    """Return what was told later of the two: deliveries come in no order."""
    if one is None or one.updated_at is None or other.updated_at is None:
        return other
    return other if other.updated_at >= one.updated_at else one


def merged(known: Mapping[str, Unshown], new: Mapping[str, Unshown]) -> dict[str, Unshown]:
    """Return all that Whop does not show: what waits already, and what deliveries tell now."""
    both = dict(known)
    for id_, one in new.items():
        before = both.get(id_)
        both[id_] = replace(_later(before, one), since=before.since, looks=0) if before else one
    return both


def newest(rows: Iterable[S | None]) -> S | None:
    """Return the newest of several pictures of one membership; of equals, the first."""
    best: S | None = None
    for row in rows:
        if row is None:
            continue
        if best is None or (
            row.updated_at and best.updated_at and row.updated_at > best.updated_at
        ):
            best = row
    return best


def missing(rows: Iterable[str], seen: Mapping[str, Seen]) -> set[str]:
    """Return the memberships that were known to run, and that a list leaves out."""
    there = set(rows)
    return {id_ for id_, one in seen.items() if one.status not in ENDED} - there


def stale(rows: Mapping[str, Shown], seen: Mapping[str, Seen]) -> set[str]:
    """Return the memberships that a list shows older than they were seen before."""
    return {
        id_
        for id_, row in rows.items()
        if (before := seen.get(id_))
        and row.updated_at
        and before.updated_at
        and row.updated_at < before.updated_at
    }


def shows(one: Unshown, row: Shown | None, *, asked: bool) -> bool:
    """Say whether a look shows, or contradicts, what was told of a membership.

    `asked` says that the object itself was read, which settles it where there is no time to go by.
    """
    if row is None or one.missing:
        return row is not None and asked
    if one.updated_at and row.updated_at:
        return row.updated_at >= one.updated_at or (one.status is None and row.status in ENTITLING)
    return asked or (row.status == one.status if one.status else row.status in ENTITLING)


def paid_for(one: Unshown, rows: Iterable[Shown]) -> bool:
    """Say whether a list shows what a payment without a membership is for."""
    return any(row.product == one.product and row.status in ENTITLING for row in rows)


def waits(one: Unshown, now: datetime) -> Unshown:
    """Return what is still not shown after a look, with when to look again."""
    if now - one.since >= _patience(one):
        return replace(one, due=None)
    pause: timedelta = min(FIRST * 2.0 ** min(one.looks, 12), LONGEST)
    return replace(one, looks=one.looks + 1, due=now + pause)


def given_up(one: Unshown, now: datetime) -> bool:
    """Say whether this look is the one at which a person is told that Whop never showed it."""
    return now - one.since >= _patience(one) and one.due is not None


def _patience(one: Unshown) -> timedelta:
    return REFUSE if one.no_account else GIVE_UP


def still_past_due(
    before: Mapping[str, datetime], rows: Iterable[Shown], now: datetime
) -> dict[str, datetime]:
    """Return since when memberships have been past due.

    One that was cancelled to its period's end meanwhile was not paid by that.
    """
    since = {row.id: before.get(row.id, now) for row in rows if row.status == PAST_DUE}
    return since | {
        row.id: before[row.id] for row in rows if row.status == "canceling" and row.id in before
    }


def says_ended(hints: Iterable[Hint], waiting: Mapping[str, Unshown]) -> frozenset[str]:
    """Return the memberships of which a delivery says that they, or their money, came to an end."""
    ended = {h.membership for h in hints if h.about in ("refund", "dispute") or h.status in ENDED}
    ended |= {id_ for id_, one in waiting.items() if one.status in ENDED}
    return frozenset(id_ for id_ in ended if id_)


class Ended(Shown, Protocol):
    """A membership with the date of its cancellation."""

    @property
    def canceled_at(self) -> datetime | None:
        """When it was cancelled."""


def explained(
    room: Room,
    memberships: Iterable[Ended],
    facts: Facts,
    *,
    ended: frozenset[str],
    moved: frozenset[str | None],
    now: datetime,
) -> bool:
    """Say whether a delivery or a date explains why no purchase opens a room to somebody any more.

    `ended` are the memberships of which a delivery told the end, `moved` the products of those that
    are another member's by now.
    """
    mine = [m for m in memberships if m.product in room.products]
    if not mine:
        return bool(moved & set(room.products))
    return all(m.id in ended or _dated(m, room, facts, now) for m in mine)


def _dated(one: Ended, room: Room, facts: Facts, now: datetime) -> bool:
    if one.status in ENDED and one.id not in facts.refunded | facts.disputed:
        return any(at and at <= now for at in (one.canceled_at, one.period_end))
    return entitlement(one, room, facts, now).holds is False
