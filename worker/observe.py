"""Observe a member: what Whop shows of their memberships, where its lists cannot be trusted alone.

A list may be empty because the key may not see members, or behind what Whop told already, or short
of a row. What was known and is left out, and what a delivery told and no list shows, is asked for
by its id. What becomes of it is `worker.policy.evidence`'s to say.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog

from webhooks.events import Delivery
from worker.memory.members import Member
from worker.memory.trail import Step
from worker.policy import evidence
from worker.policy.access import ENDED, Decision, Give, Left, Take
from worker.policy.evidence import Unshown
from worker.policy.news import Seen
from worker.policy.rooms import Room
from worker.sight import MEMBERS
from worker.tools import Tools
from worker.whop.errors import Missing
from worker.whop.types import Membership

log = structlog.get_logger()


@dataclass(slots=True)
class Observed:
    """A member's memberships as Whop shows them now, by id.

    `before` is how they were seen last; `listed` are those that only a list showed, and `moved`
    those that another user has by now, with that user and the product. `said` are the memberships
    of which a delivery told the end.
    """

    memberships: dict[str, Membership]
    said: frozenset[str]
    before: Mapping[str, Seen]
    listed: set[str]
    moved: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    @property
    def rows(self) -> list[Membership]:
        """The memberships."""
        return list(self.memberships.values())

    @property
    def lost(self) -> frozenset[str | None]:
        """The products of the memberships that are somebody else's by now."""
        return frozenset(product for _, product in self.moved.values())


async def observe(
    tools: Tools, user: str, known: Member, deliveries: Sequence[Delivery]
) -> Observed:
    """Read a member's memberships, and take down in `known` what is seen and what is not shown.

    Raises:
        Blind: the key may not see members, so that what is missing means nothing.
        Unavailable, Rejected: Whop did not tell.
    """
    now = tools.clock()
    rows = {m.id: m for m in await tools.whop.memberships(user)}
    waiting = evidence.merged(known.unshown, evidence.told(deliveries, now))
    gone = evidence.missing(rows, known.seen)
    if gone or (waiting and not rows):
        await tools.sight.require(MEMBERS)
    said = evidence.says_ended(deliveries, waiting)
    observed = Observed(rows, said, dict(known.seen), set(rows))
    unshown = {
        id_
        for id_, one in waiting.items()
        if _of_membership(id_) and not evidence.shows(one, rows.get(id_), asked=False)
    }
    ask = gone | evidence.stale(rows, known.seen) | unshown
    asked = await _ask(tools, user, observed, sorted(ask))
    waiting = await _payments(tools, waiting, observed)
    _settle(known, observed, waiting, asked, now)
    _remember(known, observed, now)
    return observed


def _of_membership(id_: str) -> bool:
    return id_.startswith("mem_")


async def _ask(tools: Tools, user: str, observed: Observed, ids: Iterable[str]) -> set[str]:
    """Read memberships by their ids; returns those of which Whop shows the object."""
    asked = set[str]()
    for id_ in ids:
        shown = await _read(tools, id_)
        if shown and shown.user not in (None, user):
            observed.moved[id_] = (shown.user or "", shown.product)
            observed.memberships.pop(id_, None)
            continue
        before = observed.before.get(id_)
        last = _as_seen(id_, user, before) if before else None
        best = evidence.newest([shown, observed.memberships.get(id_), last])
        if best:
            observed.memberships[id_] = best
        if shown:
            asked.add(id_)
            observed.listed.discard(id_)
    return asked


async def _read(tools: Tools, id_: str) -> Membership | None:
    """Read one membership; None where Whop says that there is none, which proves nothing."""
    try:
        return await tools.whop.membership(id_)
    except Missing:
        return None


def _as_seen(id_: str, user: str, seen: Seen) -> Membership:
    """Return a membership as it was seen last."""
    return Membership(
        id=id_,
        user=user,
        status=seen.status,
        product=seen.product,
        plan=seen.plan,
        created_at=seen.created_at,
        updated_at=seen.updated_at,
        period_end=seen.period_end,
        period_start=seen.period_start,
        canceled_at=seen.canceled_at,
    )


async def _payments(
    tools: Tools, waiting: dict[str, Unshown], observed: Observed
) -> dict[str, Unshown]:
    """Find out what the payments are for that name no membership, where no list shows it.

    A payment may be 404 right after its checkout.
    """
    left = dict(waiting)
    for id_, one in waiting.items():
        if _of_membership(id_):
            continue
        if evidence.paid_for(one, observed.rows):
            del left[id_]
            continue
        try:
            paid = await tools.whop.payment(id_)
        except Missing:
            continue
        if paid.substatus not in (None, "succeeded"):
            del left[id_]
        elif paid.membership:
            del left[id_]
            left.setdefault(paid.membership, replace(one, product=paid.product))
            if paid.membership not in observed.memberships:
                shown = await _read(tools, paid.membership)
                if shown:
                    observed.memberships[shown.id] = shown
    return left


def _settle(
    known: Member,
    observed: Observed,
    waiting: dict[str, Unshown],
    asked: set[str],
    now: datetime,
) -> None:
    """Keep what Whop still does not show, with when to look again, and tell whom it concerns."""
    left: dict[str, Unshown] = {}
    gone = evidence.missing(asked | observed.listed | observed.moved.keys(), known.seen)
    for id_ in gone:
        waiting.setdefault(id_, Unshown(now, missing=True, product=known.seen[id_].product))
    for id_, one in waiting.items():
        row = observed.memberships.get(id_)
        told = id_ in asked or (one.missing and id_ in observed.listed)
        shown = id_ not in gone and evidence.shows(one, row, asked=told)
        if shown or id_ in observed.moved:
            continue
        if evidence.given_up(one, now) and one.no_account:
            why = f"the delivery names no account, and {id_} is not to be found on ours"
            observed.steps.append(Step(now, "delivery.refused", why=why, id=id_))
            log.warning("delivery.refused", id=id_, why=why)
            continue
        if evidence.given_up(one, now):
            why = f"Whop told of {id_} and has not shown it for a day; look there what became of it"
            observed.steps.append(Step(now, "whop.never_showed", why=why, id=id_))
            log.warning("whop.never_showed", id=id_, why=why)
        after = replace(evidence.waits(one, now), missing=one.missing or id_ in gone)
        if after.due or after.missing:
            left[id_] = after
    known.unshown = left


def _remember(known: Member, observed: Observed, now: datetime) -> None:
    """Keep what Whop shows, and since when a membership is past due."""
    rows = observed.rows
    known.seen = {m.id: Seen.of(m) for m in rows}
    known.past_due = evidence.still_past_due(known.past_due, rows, now)


async def confirm(
    tools: Tools, user: str, known: Member, observed: Observed, decision: Decision
) -> bool:
    """Take a second look before anything is taken; returns whether it shows something else.

    What only a list says is asked of the object itself, unless a delivery said it, too. Where the
    two do not agree, what was known stands.
    """
    doubted = _decisive(decision, known, observed.rows) & observed.listed - observed.said
    if not doubted:
        return False
    now, before = tools.clock(), dict(observed.memberships)
    asked = await _ask(tools, user, observed, sorted(doubted))
    for id_ in doubted - asked - observed.moved.keys():
        last = observed.before.get(id_)
        if last and last.status not in ENDED:
            observed.memberships[id_] = _as_seen(id_, user, last)
            one = known.unshown.get(id_) or Unshown(now, missing=True, product=last.product)
            known.unshown[id_] = evidence.waits(one, now)
    _remember(known, observed, now)
    return observed.memberships != before


def _decisive(decision: Decision, known: Member, rows: Iterable[Membership]) -> set[str]:
    """Return the ended memberships on which it hangs that a seat is taken, or given anew."""
    ids = set[str]()
    for action in decision.actions:
        room: Room = action.room
        grant = known.grants.get(room.key)
        if isinstance(action, Take):
            ids |= {m.id for m in rows if m.product in room.products and m.status in ENDED}
        elif (
            grant
            and grant.membership
            and (isinstance(action, Left) or (isinstance(action, Give) and action.again))
        ):
            ids.add(grant.membership)
    return ids


def look_again(known: Member) -> datetime | None:
    """Return when to look again at what Whop does not show."""
    return min((one.due for one in known.unshown.values() if one.due), default=None)
