"""Who should be in which room: decided from a member's memberships as Whop has them now.

Nothing here remembers or does anything. `decide` compares what the member's purchases call for
with the grants that Usher gave, and returns the difference.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from worker.policy.marks import is_marked
from worker.policy.rooms import OnMoneyBack, Room

ENTITLING = frozenset({"active", "trialing", "completed", "canceling"})
"""Statuses that give access. A one-time purchase stays `completed` for ever; `canceling` lasts
until the period ends (Whop: Membership.status)."""

ENDED = frozenset({"canceled", "expired", "unresolved", "drafted"})
"""Statuses that give none. Whop documents no access for `unresolved` and `drafted`."""

PAST_DUE = "past_due"
"""A renewal failed and Whop tries again: access for the room's grace."""

GIVING = ENTITLING | {PAST_DUE}
"""Statuses of a grant that let its member in."""

LOOK_AGAIN = timedelta(hours=1)
"""When to look again at a membership that outlived the end of its period: the news may be lost."""

LINGER = timedelta(days=1)
"""How long who is in stays in where the time that was paid for is over, and Whop says no more."""

ASK_AGAIN = timedelta(days=1)
"""How often to look at who was offered a seat and has not come: Whop may let us give it by now."""

SETTLING = timedelta(minutes=10)
"""For so long a grant may be missing from Whop's lists before it counts as gone."""

PATIENCE = 3
"""How often a grant that somebody else ended is given again before a person must look."""


class Membership(Protocol):
    """The facts of one of Whop's memberships that decide anything."""

    @property
    def id(self) -> str:
        """Its `mem_` id."""

    @property
    def status(self) -> str:
        """Whop's word for where it stands."""

    @property
    def product(self) -> str | None:
        """The product that it opens."""

    @property
    def plan(self) -> str | None:
        """The plan that was bought."""

    @property
    def created_at(self) -> datetime | None:
        """When it was bought."""

    @property
    def period_end(self) -> datetime | None:
        """When the paid time ends, if it does."""


class Marked(Membership, Protocol):
    """A membership with what was written on it."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What was written on it on Whop."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A membership that Usher gave on a room's own hidden product, or is about to give.

    `membership` is None while it is only intended, or an invitation that nobody accepted yet.
    `lost` counts how often somebody else ended it; `taken` that Usher took it back, and `unproven`
    that Whop did not show its end then: it said that there is no such membership.

    `link` is where its member takes it themselves, `told` when they, or the seller's list, were
    given it, `in_chat` whether it was written to them, and `reminded` when once more. `freed` says
    that what was offered was taken back before anybody came, and its seat is another's to have.
    """

    cohort: str
    product: str
    plan: str
    since: datetime
    membership: str | None = None
    invited: bool = False
    taken: bool = False
    lost: int = 0
    unproven: bool = False
    link: str | None = None
    told: datetime | None = None
    in_chat: bool = False
    reminded: datetime | None = None
    freed: bool = False

    @property
    def offered(self) -> bool:
        """Say whether it is its member's turn: to accept an invitation, or to follow a link."""
        return not self.taken and self.membership is None and bool(self.invited or self.link)


@dataclass(frozen=True, slots=True)
class Hidden:
    """A hidden product that was made for a cohort of a room, and our plan on it."""

    room: str
    cohort: str
    product: str
    plan: str | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a member besides their memberships.

    `refunded` and `disputed` are ids of memberships; `past_due` tells since when Usher has seen a
    membership past due; `team` says that the member is an admin of the account, and `open_again`
    that Whop, which refused other ways of giving a seat than by a link, may be asked again.
    """

    grants: Mapping[str, Grant] = field(default_factory=dict)
    refunded: frozenset[str] = frozenset()
    disputed: frozenset[str] = frozenset()
    past_due: Mapping[str, datetime] = field(default_factory=dict)
    team: bool = False
    open_again: bool = False


@dataclass(frozen=True, slots=True)
class Entitlement:
    """Whether something gives access (None: it cannot be told), why, and when to look again.

    `lingers` says that it keeps who is in, and gives nobody a seat, new or back.
    """

    holds: bool | None
    why: str
    look_again: datetime | None = None
    bought: datetime | None = None
    lingers: bool = False


@dataclass(frozen=True, slots=True)
class Give:
    """The member should be in the room and is not."""

    room: Room
    why: str
    bought: datetime
    again: bool = False


@dataclass(frozen=True, slots=True)
class Adopt:
    """The member is in the room by a membership that Usher must have created before a crash."""

    room: Room
    membership: str


@dataclass(frozen=True, slots=True)
class Take:
    """The member is in the room by Usher's grant and should not be."""

    room: Room
    membership: str
    why: str


@dataclass(frozen=True, slots=True)
class Left:
    """The member is out, as they should be, but by somebody else's hand: nobody noted it yet."""

    room: Room
    membership: str


@dataclass(frozen=True, slots=True)
class Tell:
    """The member has a link that nobody gave them yet, or, `again`, that they have not used."""

    room: Room
    again: bool = False


@dataclass(frozen=True, slots=True)
class Free:
    """The member was offered a seat, has not taken it, and should not have it any more."""

    room: Room
    why: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Somebody is in by Usher's own free plan to whom no seat is due, by whatever way they came.

    `ours` says that it bears our mark: a grant of which the record was lost.
    """

    room: Room
    membership: str
    why: str
    ours: bool = False


Action = Give | Adopt | Take | Left | Tell | Free | Remove


@dataclass(frozen=True, slots=True)
class Report:
    """Something that nobody may change but somebody should know. `code` names a log event."""

    code: str
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The difference between what is and what should be, and when to look again without news."""

    actions: tuple[Action, ...] = ()
    reports: tuple[Report, ...] = ()
    look_again: datetime | None = None


def entitlement(membership: Membership, room: Room, facts: Facts, now: datetime) -> Entitlement:
    """Say whether one membership opens one room now."""
    status, id_ = membership.status, membership.id
    if id_ in facts.refunded and room.on_refund not in (None, "cancel"):
        return _money_back("refunded", room.on_refund, id_)
    if id_ in facts.disputed and room.on_dispute not in (None, "cancel"):
        return _money_back("disputed", room.on_dispute, id_)
    if status in (PAST_DUE, "canceling"):
        judge = _past_due if status == PAST_DUE else _canceling
        return judge(membership, room, facts, now)
    if status in ENTITLING:
        return Entitlement(holds=True, why=f"{id_} is {status}")
    if status in ENDED:
        return Entitlement(holds=False, why=f"{id_} is {status}")
    return Entitlement(
        holds=None, why=f"{id_} has the status {status!r}, which Usher does not know"
    )


def _past_due(membership: Membership, room: Room, facts: Facts, now: datetime) -> Entitlement:
    ends = past_due_since(membership, facts, now) + room.grace
    holds = now < ends
    verb = "ends" if holds else "ended"
    why = f"{membership.id} is past due, and its grace {verb} at {ends:%F %H:%M} UTC"
    return Entitlement(holds, why, ends if holds else None)


def _money_back(what: str, rule: OnMoneyBack, id_: str) -> Entitlement:
    return Entitlement(rule == "keep", f"{id_} was {what}, and the rules say {rule!r}")


def _canceling(membership: Membership, room: Room, facts: Facts, now: datetime) -> Entitlement:
    """Judge a membership that is cancelled and lasts until its period ends.

    One that was past due before is not paid for by being cancelled: then its grace is what lasts.
    """
    id_, ends = membership.id, [membership.period_end] if membership.period_end else []
    if id_ in facts.past_due:
        ends.append(past_due_since(membership, facts, now) + room.grace)
    over = min(ends, default=None)
    if over is None or now < over:
        return Entitlement(holds=True, why=f"{id_} is canceling", look_again=over)
    until = over + LINGER
    why = f"{id_} is canceling, and what was paid for was over at {over:%F %H:%M} UTC"
    if now >= until:
        return Entitlement(holds=False, why=why)
    why += f"; who is in stays in until Whop says that it has ended, {until:%F %H:%M} UTC at most"
    again = min(now + LOOK_AGAIN, until)
    return Entitlement(holds=True, why=why, look_again=again, lingers=True)


def past_due_since(membership: Membership, facts: Facts, now: datetime) -> datetime:
    """Return since when a membership is past due: its period's end, or when we first saw it."""
    seen = facts.past_due.get(membership.id, now)
    return min(seen, membership.period_end) if membership.period_end else seen


def access(
    room: Room, memberships: Iterable[Membership], facts: Facts, now: datetime
) -> Entitlement:
    """Say whether a member should be in a room: the last purchase that opens it keeps it open."""
    mine = [m for m in memberships if m.product in room.products]
    each = [(m, entitlement(m, room, facts, now)) for m in mine]
    again = min((e.look_again for _, e in each if e.look_again), default=None)
    held = [(m, e) for m, e in each if e.holds]
    if held:
        best = next((e for _, e in held if not e.lingers), held[0][1])
        bought = min(m.created_at or now for m, e in held if e.lingers is best.lingers)
        return replace(best, look_again=again, bought=bought)
    unknown = [e for _, e in each if e.holds is None]
    if unknown:
        return Entitlement(holds=None, why=unknown[0].why, look_again=again)
    ended = "; ".join(e.why for _, e in each) or "no purchase opens it"
    return Entitlement(holds=False, why=ended, look_again=again)


def decide(
    rooms: Iterable[Room], memberships: Sequence[Membership], facts: Facts, now: datetime
) -> Decision:
    """Compare the purchases of one member with their grants, for every room that needs a grant."""
    if facts.team:
        return Decision()
    actions: list[Action] = []
    reports: list[Report] = []
    instants: list[datetime] = []
    for room in (room for room in rooms if room.cohort):
        due = access(room, memberships, facts, now)
        instants += [due.look_again] if due.look_again else []
        grant = facts.grants.get(room.key)
        step = _step(room, due, grant, memberships, now, open_again=facts.open_again)
        if isinstance(step, Report):
            reports.append(step)
        elif step:
            actions.append(step)
    return Decision(tuple(actions), tuple(reports), min(instants, default=None))


def _step(
    room: Room,
    due: Entitlement,
    grant: Grant | None,
    memberships: Sequence[Membership],
    now: datetime,
    *,
    open_again: bool,
) -> Action | Report | None:
    if due.holds is None:
        return Report("status.unknown", f"room {room.key}: {due.why}; nothing was changed")
    live = _live(grant, memberships, now)
    if not due.holds:
        return _out(room, due, grant, live)
    if grant is None:
        return None if due.lingers else Give(room, due.why, due.bought or now)
    if live:
        return None if live == grant.membership and not grant.taken else Adopt(room, live)
    if grant.offered and not (grant.link and open_again):
        return _tell(room, grant, now)
    return None if due.lingers else _regive(room, due, grant, now)


def _out(
    room: Room, due: Entitlement, grant: Grant | None, live: str | None
) -> Take | Left | Free | None:
    if grant is None or (grant.taken and not (grant.unproven or grant.freed)):
        return None
    if live:
        return Take(room, live, due.why)
    if grant.taken:
        return None
    if grant.membership:
        return Left(room, grant.membership)
    return Free(room, due.why) if grant.offered else None


def _tell(room: Room, grant: Grant, now: datetime) -> Tell | None:
    """Have a link told; an invitation Whop tells of itself."""
    if grant.link is None:
        return None
    if grant.told is None:
        return Tell(room)
    return (
        Tell(room, again=True) if not grant.reminded and _waits(room, grant, now) <= now else None
    )


def _waits(room: Room, grant: Grant, now: datetime) -> datetime:
    remind = (grant.told or now) + room.remind
    return remind if grant.link and not grant.reminded else now + ASK_AGAIN


def waits_until(
    rooms: Iterable[Room], grants: Mapping[str, Grant], now: datetime
) -> datetime | None:
    """Return when to look again at who has not come: to remind them, and once a day."""
    offered = [(room, grants[room.key]) for room in rooms if room.key in grants]
    return min((_waits(room, one, now) for room, one in offered if one.offered), default=None)


def _regive(room: Room, due: Entitlement, grant: Grant, now: datetime) -> Give | Report | None:
    given = grant.membership is not None and not grant.taken
    if given and grant.lost >= PATIENCE:
        why = f"room {room.key}: somebody ended Usher's grant {grant.lost + 1} times"
        return Report("grant.contested", f"{why}; decide by hand, then cancel or keep the purchase")
    return Give(room, due.why, due.bought or now, again=given)


def strangers(
    rooms: Iterable[Room],
    memberships: Sequence[Marked],
    facts: Facts,
    hidden: Mapping[str, Hidden],
    *,
    now: datetime,
    account: str,
) -> list[Remove]:
    """Return the memberships on Usher's own free plans of somebody to whom no seat is due.

    They came by a plan's link that was not theirs, or by a grant that Usher has no record of, which
    bears its mark. Never the team's, and never one that is recorded.
    """
    if facts.team:
        return []
    given = {grant.membership for grant in facts.grants.values()}
    found = []
    for room in (room for room in rooms if room.cohort):
        mine = [
            (m.id, is_marked(m.metadata, account, room.keys, place.cohort))
            for m in memberships
            if (place := hidden.get(m.product or ""))
            and (place.room, place.plan) == (room.key, m.plan)
            and _gives(m)
            and m.id not in given
        ]
        due = access(room, memberships, facts, now) if mine else None
        if due and due.holds is False:
            for id_, ours in mine:
                came = "Usher gave it and forgot it" if ours else "they came by a link"
                found.append(Remove(room, id_, f"{came}, and {due.why}", ours=ours))
    return found


def _live(grant: Grant | None, memberships: Sequence[Membership], now: datetime) -> str | None:
    """Return the id of the membership by which the member is in the room through Usher.

    The plan must be ours too: a seller may sell a plan of their own on a hidden product.
    """
    if grant is None:
        return None
    ours = {m.id: m for m in memberships if (m.product, m.plan) == (grant.product, grant.plan)}
    if grant.membership and not grant.taken:
        known = ours.get(grant.membership)
        if known is None:
            return grant.membership if now - grant.since < SETTLING else None
        return known.id if _gives(known) else None
    if grant.taken and grant.membership:  # somebody may have brought it back
        back = ours.get(grant.membership)
        return back.id if back and _gives(back) else None
    return next((m.id for m in ours.values() if _gives(m)), None)


def _gives(membership: Membership) -> bool:
    return membership.status in GIVING
