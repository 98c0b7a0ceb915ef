"""Whether somebody may be in a room, and what would end that: for the person who is asked why.

It says of every room what `access` decides of those that Usher grants; into the others Whop itself
lets whoever has one of their products.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from worker.policy.access import (
    ENDED,
    ENTITLING,
    PAST_DUE,
    Facts,
    Membership,
    access,
    entitlement,
    past_due_since,
)
from worker.policy.rooms import Room


@dataclass(frozen=True, slots=True)
class Ending:
    """Something that would end an access; `at` is None where it has no date."""

    why: str
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether purchases open a room (None: it cannot be told), why, and what would end it."""

    holds: bool | None
    why: str
    endings: tuple[Ending, ...] = ()


def standing(
    room: Room,
    memberships: Sequence[Membership],
    facts: Facts,
    now: datetime,
    *,
    archived_from: datetime | None,
) -> Standing:
    """Say how somebody stands with a room; `archived_from` is when it is over, if it ever is."""
    if facts.team:
        why = "an admin of the account may go everywhere; Usher leaves the team alone"
        return Standing(holds=True, why=why)
    over = archived_from is not None and archived_from <= now
    if over and not room.cohort:
        return Standing(holds=False, why=f"the room was archived at {archived_from:%F %H:%M} UTC")
    mine = [m for m in memberships if m.product in room.products]
    if room.cohort:
        due = access(room, mine, facts, now)
        holds, why = due.holds, due.why
        open_by = [m for m in mine if entitlement(m, room, facts, now).holds]
    else:
        open_by = [m for m in mine if m.status in ENTITLING or m.status == PAST_DUE]
        holds, why = _by_purchase(mine, open_by)
    if not holds:
        return Standing(holds, why)
    endings = [_ending(m, room, facts, now) for m in open_by]
    if len(open_by) > 1:
        endings.append(Ending("each of these purchases keeps it open: the last one to end decides"))
    endings += _money_back(room)
    if archived_from:
        endings.append(Ending("the room is archived", archived_from))
    return Standing(holds, why, tuple(endings))


def _by_purchase(
    mine: Sequence[Membership], open_by: Sequence[Membership]
) -> tuple[bool | None, str]:
    if open_by:
        first = open_by[0]
        return True, f"{first.id} is {first.status}, and Whop itself lets its owner in"
    unknown = next((m for m in mine if m.status not in ENDED), None)
    if unknown:
        return None, f"{unknown.id} has the status {unknown.status!r}, which Usher does not know"
    return False, "; ".join(f"{m.id} is {m.status}" for m in mine) or "no purchase opens it"


def _ending(one: Membership, room: Room, facts: Facts, now: datetime) -> Ending:
    id_, end = one.id, one.period_end
    if one.status == PAST_DUE:
        if not room.cohort:
            return Ending(f"{id_} is past due: Whop ends it if the payment goes on failing")
        ends = past_due_since(one, facts, now) + room.grace
        return Ending(f"{id_} is past due, and its grace of {_days(room.grace)} ends", ends)
    if one.status == "canceling":
        return Ending(f"{id_} is cancelled, and the time that is paid for ends", end)
    if one.status == "completed":
        if end is None:
            return Ending(f"{id_} was bought once and for all: it does not end by itself")
        return Ending(f"{id_} was bought for a time, which ends", end)
    fails = f", with {_days(room.grace)} of grace" if room.cohort else ""
    return Ending(
        f"{id_} is {one.status}, and a payment is due; if it fails it is past due{fails}", end
    )


def _money_back(room: Room) -> list[Ending]:
    """Say what a refund or a dispute does; where there are no grants, only `cancel` does any."""
    said = {"refund": room.on_refund, "dispute": room.on_dispute}
    each = [(what, rule, _ENDS.get((what, rule))) for what, rule in said.items()]
    return [Ending(f'{ends}: on_{what} = "{rule}"') for what, rule, ends in each if ends]


_ENDS: Final[Mapping[tuple[str, str | None], str]] = {
    ("refund", "revoke"): "a refund would end it at once",
    ("dispute", "revoke"): "a dispute would end it at once",
    ("refund", "cancel"): "a refund of its latest payment would have the membership cancelled",
    ("dispute", "cancel"): "a dispute lost would have the membership cancelled",
}


def _days(length: timedelta) -> str:
    days, rest = divmod(length, timedelta(days=1))
    return str(length) if rest else f"{days} day{'' if days == 1 else 's'}"
