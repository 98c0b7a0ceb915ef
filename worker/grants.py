"""Grants: put a member into a cohort's room, and take them out again.

What Usher sets out to do is written down before Whop is asked, and what came of it after.
"""

from dataclasses import replace
from datetime import datetime

import structlog

from worker.memory.members import Member
from worker.memory.trail import Step
from worker.policy.access import ENDED, Adopt, Give, Grant, Left, Take
from worker.policy.evidence import Unshown, waits
from worker.policy.news import Seen
from worker.policy.rooms import Room, calendar_cohort, instance
from worker.provision import ready_place
from worker.tools import Tools
from worker.whop.answers import last
from worker.whop.errors import Conflict, Missing, Rejected
from worker.whop.types import Membership

log = structlog.get_logger()


async def apply(tools: Tools, user: str, known: Member, action: Give | Adopt | Take | Left) -> Step:
    """Do to a member's grants what was decided; returns what the trail says of it.

    Raises:
        Unavailable, Rejected: Whop did not let it happen.
    """
    match action:
        case Give():
            return await _give(tools, user, known, action)
        case Adopt():
            return await _adopt(tools, user, known, action)
        case Take():
            return await _take(tools, user, known, action)
        case Left():
            return await _left(tools, user, known, action)


async def _give(tools: Tools, user: str, known: Member, give: Give) -> Step:
    """Find the member's cohort, have its room ready, and put the member in."""
    room, before = give.room, known.grants.get(give.room.key)
    cohort = before.cohort if before else await _cohort(tools, room, user, give.bought)
    key = instance(room, cohort)
    place = await ready_place(tools, room, cohort)
    if before and (before.taken or before.membership):
        known.salt += 1  # a new grant, and no repetition of one that broke off
    intended = Grant(
        cohort=cohort,
        product=place.product or "",
        plan=place.plan or "",
        since=tools.clock(),
        lost=(before.lost if before else 0) + give.again,
    )
    known.grants[room.key] = intended
    await tools.store.save_member(user, known)  # known to be ours, whatever happens next
    if room.grant == "invite":
        idempotency = _idempotency(tools, key, user, known)
        await tools.whop.invite(plan=intended.plan, user=user, key=idempotency)
        what, held = "member.invited", replace(intended, invited=True)
    else:
        made = await _make(tools, key, user, known, intended.plan)
        known.seen[made.id] = Seen.of(made)
        what, held = "member.granted", replace(intended, membership=made.id)
    answer = last()
    known.grants[room.key] = held
    await tools.store.granted(user, known, key)
    log.info(what, room=key, membership=held.membership, why=give.why)
    return Step(tools.clock(), what, give.why, key, held.membership, call=answer)


async def _make(tools: Tools, key: str, user: str, known: Member, plan: str) -> Membership:
    """Make a membership, and not be content with one that was made before and is over.

    What was live when we looked would have been adopted. So an answer that names one of those seen
    is Whop's to an attempt that broke off, told again: somebody has ended that one since.
    """
    idempotency = _idempotency(tools, key, user, known)
    made = await tools.whop.create_membership(plan=plan, user=user, key=idempotency)
    if made.id in known.seen:
        known.salt += 1
        idempotency = _idempotency(tools, key, user, known)
        made = await tools.whop.create_membership(plan=plan, user=user, key=idempotency)
    return made


def _idempotency(tools: Tools, key: str, user: str, known: Member) -> str:
    return f"usher/{tools.rules.account}/{key}/{user}/{known.salt}"


async def _cohort(tools: Tools, room: Room, user: str, bought: datetime) -> str:
    if room.cohort is None:
        raise AssertionError("only cohort rooms are granted")
    dated = calendar_cohort(room.cohort, bought, room.schedule.zone)
    return await tools.store.seat(room.key, user, cohort=dated, seats=room.cohort.seats)


async def _adopt(tools: Tools, user: str, known: Member, adopt: Adopt) -> Step:
    """Take note of a grant that Whop has and we have not: a crash, or an accepted invitation."""
    grant = known.grants[adopt.room.key]
    known.grants[adopt.room.key] = replace(
        grant, membership=adopt.membership, invited=False, taken=False, unproven=False
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
        proven = await _shown_ended(tools, user, known, take.membership, refusal)
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


async def _shown_ended(tools: Tools, user: str, known: Member, id_: str, refusal: Rejected) -> bool:
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
