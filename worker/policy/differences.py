"""What is not as it should be, as data: for whoever proves that access equals purchases.

Who should be in which room is `worker.policy.access.decide`'s to say, here as everywhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol

from worker.policy.access import (
    GIVING,
    Action,
    Adopt,
    Facts,
    Free,
    Give,
    Grant,
    Hidden,
    Left,
    Marked,
    Membership,
    Remove,
    Take,
    Tell,
    decide,
    strangers,
)
from worker.policy.evidence import Ended, explained
from worker.policy.marks import is_marked
from worker.policy.rooms import Room, split
from worker.policy.ways import Refusals, removes_strangers

LET_BE: Final = (
    "Usher did not give it and will not end it: somebody joined by the plan's link, or was let in "
    "by hand; cancel it on Whop if they should not be there"
)

YOUNG: Final = timedelta(minutes=2)
"""How long a change on Whop may be on its way to us: its delivery, the try 30 seconds after it, and
the work. What failed twice is told: Whop's next tries are minutes, then hours away, and nobody is
to go without a seat for so long because something may yet come."""


class Kind(StrEnum):
    """What can be wrong."""

    SHUT_OUT = "member.shut_out"
    LET_IN = "member.let_in"
    UNDECIDED = "member.undecided"
    UNRECORDED = "grant.unrecorded"
    GONE = "grant.gone"
    KEPT = "seat.kept"
    STRANGER = "member.stranger"
    PAID_BACK = "purchase.paid_back"
    NOT_OURS = "grant.not_ours"
    SEATS_LOST = "seats.lost"
    OVERSOLD = "seats.oversold"
    OVERFULL = "cohort.overfull"
    TICKET = "ticket.miscounted"
    ROOM_UNRECORDED = "room.unrecorded"
    ROOM_MISSING = "room.missing"
    ROOM_GONE = "room.gone"
    DETACHED = "room.detached"
    MISATTACHED = "room.misattached"
    DOUBLED = "room.doubled"
    RENAMED = "room.renamed"
    KEY_UNCLEAR = "room.key_unclear"
    PUT_AWAY = "room.product_archived"
    CHANNEL = "channel.differs"


class Cure(StrEnum):
    """Who can put it right: a look at the subject, a walk through all that Whop has, a person."""

    CONVERGE = "converge"
    RECALL = "recall"
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it should be; `room` is a room's key, or that of one of its rooms.

    `id` is Whop's id of what is wrong, if there is one; `explained` says, where somebody would be
    put out, that a date says why.
    """

    kind: Kind
    subject: str
    why: str
    room: str | None = None
    user: str | None = None
    id: str | None = None
    cure: Cure = Cure.CONVERGE
    explained: bool = True


class Changed(Protocol):
    """Something of Whop's, with the time of its last change."""

    @property
    def updated_at(self) -> datetime | None:
        """When Whop last changed it."""


class Row(Ended, Marked, Protocol):
    """One of Whop's memberships, with the dates of its last change and of its cancellation."""


def young(rows: Iterable[Changed], now: datetime) -> bool:
    """Say whether the news of one of these may still be on its way."""
    return any(row.updated_at and now - row.updated_at < YOUNG for row in rows)


def found_grant(
    room: Room, hidden: Mapping[str, Hidden], memberships: Sequence[Row], account: str
) -> Grant | None:
    """Return the grant that Usher must have given, where no record of it is left.

    What bears our mark is Usher's. Without one, Whop does not say who made a membership: on our
    plan, made while a purchase of theirs ran, it is Usher's; without such a purchase somebody
    joined by the plan's link.
    """
    bought = [m for m in memberships if m.product in room.products]
    ours = [
        (m, place)
        for m in memberships
        if (place := hidden.get(m.product or ""))
        and (place.room, place.plan) == (room.key, m.plan)
        and (
            is_marked(m.metadata, account, room.keys, place.cohort)
            or any(_ran(purchase, _when(m)) for purchase in bought)
        )
    ]
    if not ours:
        return None
    best, place = min(ours, key=lambda one: (one[0].status not in GIVING, _when(one[0])))
    return Grant(
        cohort=place.cohort,
        product=place.product,
        plan=place.plan or "",
        since=_when(best),
        membership=best.id,
        taken=best.status not in GIVING,
    )


def _ran(purchase: Row, at: datetime) -> bool:
    """Say whether a purchase may have called for a grant at an instant."""
    if purchase.status in GIVING:
        return _when(purchase) <= at
    # What is over may still be changed: by its refund, or its metadata.
    ends = [end for end in (purchase.updated_at, purchase.period_end) if end]
    return _when(purchase) <= at and all(at <= end for end in ends)


_EARLY: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _when(membership: Membership) -> datetime:
    return membership.created_at or _EARLY


def of_member(
    user: str,
    rooms: Sequence[Room],
    memberships: Sequence[Row],
    facts: Facts,
    *,
    hidden: Mapping[str, Hidden],
    recalled: frozenset[str],
    now: datetime,
    account: str,
    refused: Refusals,
) -> list[Difference]:
    """Return what is wrong with one member's access to the rooms that need a grant.

    `recalled` are the rooms of which Usher's records are whole, and `refused` are the ways of
    giving a seat that Whop refuses the account.
    """
    if facts.team:
        return []
    decision = decide(rooms, memberships, facts, now)
    found = {
        room.key: grant
        for room in rooms
        if room.key not in facts.grants
        and (grant := found_grant(room, hidden, memberships, account))
    }
    wrong = [
        Difference(Kind.UNDECIDED, f"member:{user}", one.why, user=user, cure=Cure.PERSON)
        for one in decision.reports
    ]
    actions = [one for one in decision.actions if not isinstance(one, Tell)]
    acted = {action.room.key for action in actions}
    for one in actions:
        wrong.append(_of_action(user, one, facts.grants, found, recalled))
        if isinstance(one, Take):
            dated = explained(
                one.room, memberships, facts, ended=frozenset(), moved=frozenset(), now=now
            )
            wrong[-1] = replace(wrong[-1], explained=dated)
    for key, grant in found.items():
        if key not in acted and not grant.taken and key not in recalled:
            why = "Redis has no record of this grant of Usher's"
            wrong.append(_member(Kind.UNRECORDED, user, key, grant, why=why, cure=Cure.RECALL))
    held = [grant for grant in facts.grants.values() if not grant.taken]
    known = {g.membership for g in (*held, *found.values())}
    known |= {a.membership for a in decision.actions if isinstance(a, Adopt)}
    known -= {g.membership for k, g in found.items() if k in recalled and k not in acted}
    out = {
        one.membership: one
        for one in strangers(rooms, memberships, facts, hidden, now=now, account=account)
        if one.membership not in known and (one.ours or removes_strangers(one.room, refused, now))
    }
    keys = {room.key for room in rooms}
    wrong += _not_ours(user, memberships, hidden, known=known, rooms=keys, out=out)
    return wrong


def _of_action(
    user: str,
    action: Action,
    grants: Mapping[str, Grant],
    found: Mapping[str, Grant],
    recalled: frozenset[str],
) -> Difference:
    key, grant = action.room.key, grants.get(action.room.key)
    match action:
        case Take():
            return _member(Kind.LET_IN, user, key, grant, why=action.why)
        case Free():
            why = f"a seat is kept for them that they have not taken, and {action.why}"
            return _member(Kind.KEPT, user, key, grant, why=why)
        case Left():
            why = f"Whop has not had {action.membership} any more since somebody ended it"
            return _member(Kind.GONE, user, key, grant, why=why)
        case Adopt():
            why = f"Usher set out to give it, and does not know that it is {action.membership}"
            return _member(Kind.UNRECORDED, user, key, grant, why=why)
        case Give():
            lost = found.get(key)
            if lost and not lost.taken:
                cure = Cure.CONVERGE if key in recalled else Cure.RECALL
                why = "Redis has no record of this grant of Usher's"
                return _member(Kind.UNRECORDED, user, key, lost, why=why, cure=cure)
            gone = (
                f", and Usher's grant {grant.membership} has ended"
                if action.again and grant
                else ""
            )
            return _member(Kind.SHUT_OUT, user, key, grant or lost, why=f"{action.why}{gone}")
        case _:
            raise AssertionError(f"{action} is no difference of a member's own")


def _member(
    kind: Kind, user: str, room: str, grant: Grant | None, *, why: str, cure: Cure = Cure.CONVERGE
) -> Difference:
    key = f"{room}/{grant.cohort}" if grant else room
    id_ = grant.membership if grant else None
    return Difference(kind, f"member:{user}", why, room=key, user=user, id=id_, cure=cure)


def _not_ours(
    user: str,
    memberships: Sequence[Membership],
    hidden: Mapping[str, Hidden],
    *,
    known: set[str | None],
    rooms: set[str],
    out: Mapping[str, Remove],
) -> list[Difference]:
    """Return what is on our hidden products without a record: to be removed, or a person's."""

    def difference(m: Membership, place: Hidden) -> Difference:
        key, removed = f"{place.room}/{place.cohort}", out.get(m.id)
        kind = Kind.STRANGER if removed else Kind.NOT_OURS
        why = removed.why if removed else LET_BE
        cure = Cure.CONVERGE if removed else Cure.PERSON
        subject, ours = f"member:{user}", removed is None or removed.ours
        return Difference(kind, subject, why, key, user, id=m.id, cure=cure, explained=ours)

    return [
        difference(m, place)
        for m in memberships
        if (place := hidden.get(m.product or ""))
        and place.room in rooms
        and m.id not in known
        and m.status in GIVING
    ]


def in_scope(room: Room, wanted: str | None) -> bool:
    """Say whether a room is meant by a key: its own, or that of one of its rooms on Whop."""
    return wanted is None or split(wanted)[0] == room.key
