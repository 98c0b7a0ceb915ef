"""Grants: put a member into a cohort's room, and take them out again.

What Usher sets out to do is written down before Whop is asked, and what came of it after.
"""

from dataclasses import replace
from datetime import datetime
from typing import Final

import structlog

from worker.links import link_of, refused, tell
from worker.memory.members import Member
from worker.memory.trail import Step
from worker.policy import ways
from worker.policy.access import (
    ENDED,
    Action,
    Adopt,
    Free,
    Give,
    Grant,
    Left,
    Remove,
    Take,
    Tell,
)
from worker.policy.evidence import Unshown, waits
from worker.policy.marks import is_marked, mark
from worker.policy.news import Seen
from worker.policy.rooms import Room, calendar_cohort, instance, split
from worker.policy.ways import Way
from worker.proof.recall import recall
from worker.provision import ready_place
from worker.tools import Tools
from worker.whop.answers import last
from worker.whop.errors import Conflict, Missing, NotAvailable, Rejected
from worker.whop.types import Membership

SHOWN: Final = 10

log = structlog.get_logger()


async def apply(tools: Tools, user: str, known: Member, action: Action) -> Step | None:
    """Do to a member's grants what was decided; returns what the trail says of it.

    Raises:
        Unavailable, Rejected: Whop did not let it happen.
    """
    match action:
        case Give():
            step = await _give(tools, user, known, action)
        case Adopt():
            step = await _adopt(tools, user, known, action)
        case Take():
            step = await _take(tools, user, known, action)
        case Left():
            step = await _left(tools, user, known, action)
        case Tell():
            step = await tell(tools, user, known, action)
        case Free():
            step = await _free(tools, user, known, action)
        case Remove():
            step = await _remove(tools, user, known, action)
    return step


async def _give(tools: Tools, user: str, known: Member, give: Give) -> Step | None:
    """Find the member's cohort, have its room ready, and put the member in."""
    room, before = give.room, known.grants.get(give.room.key)
    kept = before if before and not before.freed else None
    cohort = kept.cohort if kept else await _cohort(tools, room, user, give.bought)
    key = instance(room, cohort)
    place = await ready_place(tools, room, cohort)
    if before and (before.taken or before.membership):
        known.salt += 1  # a new grant, and no repetition of one that broke off
    waiting = before if before and before.offered else None
    intended = replace(
        waiting or Grant(cohort=cohort, product="", plan="", since=tools.clock()),
        product=place.product or "",
        plan=place.plan or "",
        lost=(before.lost if before else 0) + give.again,
    )
    known.grants[room.key] = intended
    await tools.store.save_member(user, known)  # known to be ours, whatever happens next
    what, held = await _by_some_way(tools, user, known, room, intended)
    known.grants[room.key] = held
    if held.offered:
        await tools.store.offered(user, known, key)
    else:
        await tools.store.granted(user, known, key)
    answer = last()
    if held.link:
        return None if waiting else await tell(tools, user, known, Tell(room))
    log.info(what, room=key, membership=held.membership, why=give.why)
    return Step(tools.clock(), what, give.why, key, held.membership, call=answer)


async def _by_some_way(
    tools: Tools, user: str, known: Member, room: Room, intended: Grant
) -> tuple[str, Grant]:
    """Give a seat in the first way that Whop allows this account; the last one is a link.

    Raises:
        Forbidden: the key lacks a permission: a person must give it, or say `grant = "link"`.
        Unavailable, Rejected: Whop did not let it happen, and may another time.
    """
    for way in ways.to_try(room.grant, await tools.store.refusals(), tools.clock()):
        try:
            match way:
                case Way.CREATE:
                    made = await _make(tools, user, known, room, intended)
                    known.seen[made.id] = Seen.of(made)
                    if not is_marked(
                        made.metadata, tools.rules.account, (room.key,), intended.cohort
                    ):
                        await tools.store.unmarked({made.id: (room.key, intended.cohort)})
                    return "member.granted", replace(intended, membership=made.id, link=None)
                case Way.INVITE:
                    idempotency = _idempotency(tools, room, user, known, intended)
                    plan = intended.plan
                    await tools.whop.invite(plan=plan, user=user, key=f"{idempotency}/invite")
                    return "member.invited", replace(intended, invited=True, link=None)
        except Rejected as refusal:
            if room.grant != "auto" or not await _for_good(tools, intended, refusal):
                raise
            known.salt += 1  # Whop repeats a refusal to its key
            await refused(tools, way, refusal)
    return "member.linked", replace(intended, link=intended.link or await link_of(tools, intended))


async def _for_good(tools: Tools, intended: Grant, refusal: Rejected) -> bool:
    """Say whether Whop will not let the account do this at all, whoever the buyer is."""
    not_available = isinstance(refusal, NotAvailable)
    if not ways.is_for_good(refusal.status, str(refusal), not_available=not_available):
        return False
    if not isinstance(refusal, Missing):
        return True
    return any(one.id == intended.plan for one in await tools.whop.plans(intended.product))


async def _make(tools: Tools, user: str, known: Member, room: Room, intended: Grant) -> Membership:
    """Make a membership, and not be content with one that was made before and is over.

    What was live when we looked would have been adopted. So an answer that names one of those seen
    is Whop's to an attempt that broke off, told again: somebody has ended that one since.
    """
    metadata = mark(tools.rules.account, room.key, intended.cohort)

    async def create() -> Membership:
        idempotency = _idempotency(tools, room, user, known, intended)
        return await tools.whop.create_membership(
            plan=intended.plan, user=user, key=idempotency, metadata=metadata
        )

    made = await create()
    if made.id in known.seen:
        known.salt += 1
        made = await create()
    return made


def _idempotency(tools: Tools, room: Room, user: str, known: Member, grant: Grant) -> str:
    key = instance(room, grant.cohort)
    return f"usher/{tools.rules.account}/{key}/{user}/{known.salt}"


async def _cohort(tools: Tools, room: Room, user: str, bought: datetime) -> str:
    if room.cohort is None:
        raise AssertionError("only cohort rooms are granted")
    dated = calendar_cohort(room.cohort, bought, room.schedule.zone)
    await recall(tools)  # where Redis may not know all, no seat is given yet
    return await tools.store.seat(room.key, user, cohort=dated, seats=room.cohort.seats)


async def _free(tools: Tools, user: str, known: Member, free: Free) -> Step:
    """Give a seat back that was offered and not taken; who comes all the same is put out."""
    grant = known.grants[free.room.key]
    key = instance(free.room, grant.cohort)
    await tools.store.free_seat(free.room.key, user, grant.cohort)
    known.grants[free.room.key] = replace(grant, taken=True, freed=True)
    await tools.store.taken(user, known, key)
    log.info("member.seat_freed", room=key, why=free.why)
    return Step(tools.clock(), "member.seat_freed", free.why, key)


async def _remove(tools: Tools, user: str, known: Member, remove: Remove) -> Step:
    """End a membership on Usher's own plan of somebody to whom no seat is due."""
    idempotency = f"usher/cancel/{remove.membership}/{known.salt}"
    try:
        ended = await tools.whop.cancel(remove.membership, key=idempotency)
        known.seen[ended.id] = Seen.of(ended)
    except (Conflict, Missing) as refusal:
        await shown_ended(tools, user, known, remove.membership, refusal)
    waiting = await _who_waits(tools, remove.room)
    log.warning(
        "stranger.removed",
        room=remove.room.key,
        membership=remove.membership,
        why=remove.why,
        waiting=waiting,
    )
    still = f"; a seat still waits there for {', '.join(waiting)}" if waiting else ""
    why = f"{remove.why}{still}"
    return Step(
        tools.clock(), "stranger.removed", why, remove.room.key, remove.membership, call=last()
    )


async def _who_waits(tools: Tools, room: Room) -> list[str]:
    """Return some of those who have a link for a room and have not come: it may be one of them."""
    keys = [key for key in await tools.store.instances() if split(key)[0] == room.key]
    offered = await tools.store.offered_in(keys)
    return [user for users in offered.values() for user in users][:SHOWN]


async def _adopt(tools: Tools, user: str, known: Member, adopt: Adopt) -> Step:
    """Take note of a grant that Whop has and we have not: a crash, or an accepted invitation."""
    grant = known.grants[adopt.room.key]
    if grant.freed and adopt.room.cohort:
        cohorts = adopt.room.cohort
        await tools.store.seat(adopt.room.key, user, cohort=grant.cohort, seats=cohorts.seats)
    known.grants[adopt.room.key] = replace(
        grant,
        membership=adopt.membership,
        invited=False,
        taken=False,
        unproven=False,
        link=None,
        freed=False,
    )
    key = instance(adopt.room, grant.cohort)
    await tools.store.granted(user, known, key)
    log.info("member.found_in_room", room=key, membership=adopt.membership)
    return Step(tools.clock(), "member.found_in_room", room=key, id=adopt.membership)


async def _take(tools: Tools, user: str, known: Member, take: Take) -> Step:
    """End Usher's own grant. What is ended already is just as well, once Whop shows it."""
    grant = known.grants[take.room.key]
    key = instance(take.room, grant.cohort)
    idempotency = f"usher/cancel/{take.membership}/{known.salt}"
    try:
        ended = await tools.whop.cancel(take.membership, key=idempotency)
        known.seen[ended.id] = Seen.of(ended)
        proven = ended.status in ENDED
    except (Conflict, Missing) as refusal:
        proven = await shown_ended(tools, user, known, take.membership, refusal)
    answer = last()
    known.grants[take.room.key] = replace(
        grant, membership=take.membership, taken=True, unproven=not proven
    )
    await tools.store.taken(user, known, key)
    if proven:
        log.info("member.revoked", room=key, membership=take.membership, why=take.why)
        return Step(tools.clock(), "member.revoked", take.why, key, take.membership, call=answer)
    now = tools.clock()
    known.unshown[take.membership] = waits(Unshown(now, status="canceled"), now)
    log.warning("member.end_unproven", room=key, membership=take.membership, next="it looks again")
    return Step(now, "member.end_unproven", take.why, key, take.membership, call=answer)


async def _left(tools: Tools, user: str, known: Member, left: Left) -> Step:
    """Take note that a grant has ended without us, where nothing calls for it any more."""
    grant = known.grants[left.room.key]
    known.grants[left.room.key] = replace(grant, taken=True)
    key = instance(left.room, grant.cohort)
    await tools.store.taken(user, known, key)
    log.info("member.left", room=key, membership=left.membership)
    return Step(tools.clock(), "member.left", room=key, id=left.membership)


async def shown_ended(tools: Tools, user: str, known: Member, id_: str, refusal: Rejected) -> bool:
    """Say whether Whop shows that a membership has ended which it would not end.

    A refusal proves nothing, and that there is no such membership does not either. False where
    neither the object nor the list has it: nothing is left to be ended, and nothing shows its end.

    Raises:
        Rejected: Whop shows that it runs; it is tried again.
    """
    shown = await _by_id(tools, id_)
    if shown is None:
        rows = await tools.whop.memberships(user)
        shown = next((row for row in rows if row.id == id_), None)
    if shown is None:
        return False
    known.seen[id_] = Seen.of(shown)
    if shown.status not in ENDED:
        raise refusal
    return True


async def _by_id(tools: Tools, id_: str) -> Membership | None:
    try:
        return await tools.whop.membership(id_)
    except Missing:
        return None
