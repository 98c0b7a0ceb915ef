"""Converge: observe a subject on Whop, let policy decide, apply the difference.

Each function here takes a claimed subject to what should be true now, and returns when to look
again without being asked, or None. Doing it twice is doing it once. What waits for the subject
only says where to look; the truth is read from Whop.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

import structlog
from msgspec import structs

from worker.channels import RELEASED, set_channel
from worker.doubts import LONG_AGO, note_payment
from worker.policy.access import (
    ENDED,
    ENTITLING,
    PAST_DUE,
    Adopt,
    Decision,
    Give,
    Grant,
    Left,
    Take,
    decide,
)
from worker.policy.differences import found_grant
from worker.policy.news import LAG, Seen, is_ahead, is_news
from worker.policy.rooms import Room, calendar_cohort, instance, split
from worker.policy.schedule import next_change
from worker.proof.recall import recall
from worker.provision import provision, ready_place
from worker.store import Member, Place, Step
from worker.subjects import TOOK, Claim, milliseconds
from worker.tools import Tools
from worker.whop.answers import last
from worker.whop.errors import Conflict, Missing, Rejected, Unavailable, WhopError
from worker.whop.types import Membership

log = structlog.get_logger()

VERIFY: Final = "verify"
"""Why a subject is due that was found not to be as it should."""

FIRST_PURCHASE: Final = "first_purchase"
"""Why a room is due that waited for its first buyer."""


async def converge(tools: Tools, claim: Claim) -> datetime | None:
    """Bring a subject up to date; returns when it wants the next look without news.

    Raises:
        Unavailable: wait and try again.
        Rejected: Whop refused a step.
    """
    kind, _, name = claim.subject.partition(":")
    return await KINDS.get(kind, nobody)(tools, claim, name)


# --- a member


async def member(tools: Tools, claim: Claim, user: str) -> datetime | None:
    """Give a member the rooms that their purchases open, and take what none opens any more.

    A room, or a payment, that cannot be dealt with does not hold up the others.
    """
    known = await tools.store.member(user)
    if not known.rules and await recall(tools):
        known = await tools.store.member(user)
    now = tools.clock()
    if not _worth_a_look(tools, claim, known, now):
        log.info("member.unchanged")
        return known.look_again
    memberships = await tools.whop.memberships(user)
    unknown = known.looked is None
    _remember(known, memberships, now)
    known.rules, known.looked = tools.rules.mark, now
    errors = await _look_at_payments(tools, claim, user, known)
    team = user in (await tools.store.team() or ())
    decision = decide(tools.rules.rooms, memberships, known.facts(team=team), now)
    if await _know_again(tools, user, known, memberships, decision, every=unknown):
        decision = decide(tools.rules.rooms, memberships, known.facts(team=team), now)
    await _open_on_purchase(tools, memberships)
    await _count_seats(tools, user, memberships)
    known.look_again = _sooner(decision.look_again, _whop_lags(claim, known, now))
    took = claim.taken[:TOOK]
    steps = [Step(now, r.code, why=r.why, deliveries=took) for r in decision.reports]
    for action in decision.actions:
        try:
            step = await _apply(tools, user, known, action)
            steps.append(structs.replace(step, deliveries=took))
        except WhopError as error:
            known.salt += isinstance(error, Rejected)
            errors.append(error)
    for report in decision.reports:
        log.warning(report.code, why=report.why)
    if not (decision.actions or errors):
        log.info("member.in_order", memberships=len(memberships))
    known.unfinished = bool(errors)
    await tools.store.save_member(user, known)
    await tools.store.trail(claim.subject, steps)
    _raise_first(errors)
    return known.look_again


def _raise_first(errors: Sequence[WhopError]) -> None:
    """Raise one of what failed, if anything did: first of all what may yet succeed."""
    if errors:
        raise next((error for error in errors if isinstance(error, Unavailable)), errors[0])


def _worth_a_look(tools: Tools, claim: Claim, known: Member, now: datetime) -> bool:
    if claim.reasons or claim.tries > 1 or not claim.deliveries:
        return True
    changed = known.unfinished or known.rules != tools.rules.mark
    if changed or (known.look_again and known.look_again <= now):
        return True
    doubtful = known.refunded.keys() | known.disputed.keys()
    return any(d.membership in doubtful or is_news(d, known.seen) for d in claim.deliveries)


def _whop_lags(claim: Claim, known: Member, now: datetime) -> datetime | None:
    """Look again soon if a delivery tells of a membership that Whop's list does not show yet."""
    ahead = any(is_ahead(delivery, known.seen) for delivery in claim.deliveries)
    return now + LAG if ahead else None


def _sooner(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((at for at in (one, other) if at), default=None)


def _remember(known: Member, memberships: Sequence[Membership], now: datetime) -> None:
    """Keep what Whop shows, and since when a membership is past due."""
    known.seen = {m.id: Seen.of(m) for m in memberships}
    late = [m.id for m in memberships if m.status == PAST_DUE]
    known.past_due = {id_: known.past_due.get(id_, now) for id_ in late}


async def _look_at_payments(
    tools: Tools, claim: Claim, user: str, known: Member
) -> list[WhopError]:
    """Read the payments behind refunds and disputes, where a room's rules ask what came of them.

    A verification reads all of the member's: news of them may be lost. Returns what could not be
    read.
    """
    errors: list[WhopError] = []
    if not any(room.on_refund or room.on_dispute for room in tools.rules.rooms):
        return errors
    if VERIFY in claim.reasons:
        return await _look_at_all_payments(tools, user, known)
    doubtful = known.refunded.keys() | known.disputed.keys()
    hints = [
        d for d in claim.deliveries if d.about in ("refund", "dispute") or d.membership in doubtful
    ]
    for id_ in sorted({hint.payment for hint in hints if hint.payment}):
        try:
            note_payment(known, await tools.whop.payment(id_))
        except WhopError as error:
            errors.append(error)
    return errors


async def _look_at_all_payments(tools: Tools, user: str, known: Member) -> list[WhopError]:
    try:
        paid = [payment async for payment in tools.whop.payments(user=user)]
    except WhopError as error:
        return [error]
    for payment in sorted(paid, key=lambda one: one.created_at or LONG_AGO):
        note_payment(known, payment)
    return []


async def _know_again(
    tools: Tools,
    user: str,
    known: Member,
    memberships: Sequence[Membership],
    decision: Decision,
    *,
    every: bool,
) -> bool:
    """Look, before giving for the first time, for a grant of which the record was lost.

    Of somebody of whom nothing is known, for `every` room. Returns whether there was one.
    """
    rooms = [a.room for a in decision.actions if isinstance(a, Give)]
    if every:
        rooms = [room for room in tools.rules.rooms if room.cohort]
    rooms = [room for room in rooms if room.key not in known.grants]
    sold = {product for room in rooms for product in room.products}
    others = sorted({m.product for m in memberships if m.product} - sold) if rooms else []
    hidden = await tools.store.hidden(others)
    before = len(known.grants)
    for room in rooms if hidden else ():
        grant = found_grant(room, hidden, memberships)
        if grant:
            known.grants[room.key] = grant
            await tools.store.remember_grant(user, known, room.key, grant)
            log.warning(
                "grant.found", room=instance(room, grant.cohort), membership=grant.membership
            )
    return len(known.grants) > before


async def _open_on_purchase(tools: Tools, memberships: Sequence[Membership]) -> None:
    """Ask for the rooms that wait for their first buyer, now that there is one."""
    now = tools.clock()
    for room in tools.rules.rooms:
        bought = [m.created_at or now for m in _tickets(room, memberships)]
        if not (room.waits and bought):
            continue
        key = (await with_dates(tools, room)).bought_key(max(bought), now)
        if key and key not in tools.places:
            place = await tools.store.place(key)
            if place and place.ready:
                tools.places[key] = place
            else:
                await tools.inbox.mark(f"room:{key}", FIRST_PURCHASE, milliseconds(now))


def _tickets(room: Room, memberships: Sequence[Membership]) -> list[Membership]:
    """Return the memberships that open a room."""
    return [m for m in memberships if m.status in ENTITLING and m.product in room.products]


async def _count_seats(tools: Tools, user: str, memberships: Sequence[Membership]) -> None:
    """Note who has a ticket for the rooms that have seats; what is sold over them is the seller's
    to know, and nobody's to take back.
    """
    for room in tools.rules.rooms:
        if not room.seats:
            continue
        since = [m.created_at or LONG_AGO for m in _tickets(room, memberships)]
        sold = await tools.store.sold(room.key, user, min(since, default=None))
        if sold > room.seats:
            log.warning("seats.oversold", room=room.key, sold=sold, seats=room.seats)


async def _apply(
    tools: Tools, user: str, known: Member, action: Give | Adopt | Take | Left
) -> Step:
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
    idempotency = f"usher/{tools.rules.account}/{key}/{user}/{known.salt}"
    if room.grant == "invite":
        await tools.whop.invite(plan=intended.plan, user=user, key=idempotency)
        what, held = "member.invited", replace(intended, invited=True)
    else:
        made = await tools.whop.create_membership(plan=intended.plan, user=user, key=idempotency)
        known.seen[made.id] = Seen.of(made)
        what, held = "member.granted", replace(intended, membership=made.id)
    answer = last()
    known.grants[room.key] = held
    await tools.store.granted(user, known, key)
    log.info(what, room=key, membership=held.membership, why=give.why)
    return Step(tools.clock(), what, give.why, key, held.membership, call=answer)


async def _cohort(tools: Tools, room: Room, user: str, bought: datetime) -> str:
    if room.cohort is None:
        raise AssertionError("only cohort rooms are granted")
    dated = calendar_cohort(room.cohort, bought, room.schedule.zone)
    return await tools.store.seat(room.key, user, cohort=dated, seats=room.cohort.seats)


async def _adopt(tools: Tools, user: str, known: Member, adopt: Adopt) -> Step:
    """Take note of a grant that Whop has and we have not: a crash, or an accepted invitation."""
    grant = known.grants[adopt.room.key]
    known.grants[adopt.room.key] = replace(
        grant, membership=adopt.membership, invited=False, taken=False
    )
    key = instance(adopt.room, grant.cohort)
    await tools.store.granted(user, known, key)
    log.info("member.found_in_room", room=key, membership=adopt.membership)
    return Step(tools.clock(), "member.found_in_room", room=key, id=adopt.membership)


async def _take(tools: Tools, user: str, known: Member, take: Take) -> Step:
    """End Usher's own grant. What is ended already is just as well."""
    grant = known.grants[take.room.key]
    key = instance(take.room, grant.cohort)
    idempotency = f"usher/cancel/{take.membership}/{known.salt}"
    try:
        ended = await tools.whop.cancel(take.membership, key=idempotency)
        known.seen[ended.id] = Seen.of(ended)
    except (Conflict, Missing) as refusal:
        await _make_sure(tools, take.membership, refusal)
        log.info("member.gone_already", room=key, why=str(refusal))
    known.grants[take.room.key] = replace(grant, membership=take.membership, taken=True)
    await tools.store.taken(user, known, key)
    log.info("member.revoked", room=key, membership=take.membership, why=take.why)
    return Step(tools.clock(), "member.revoked", take.why, key, take.membership, call=last())


async def _left(tools: Tools, user: str, known: Member, left: Left) -> Step:
    """Take note that a grant has ended without us, where nothing calls for it any more."""
    grant = known.grants[left.room.key]
    known.grants[left.room.key] = replace(grant, taken=True)
    key = instance(left.room, grant.cohort)
    await tools.store.taken(user, known, key)
    log.info("member.left", room=key, membership=left.membership)
    return Step(tools.clock(), "member.left", room=key, id=left.membership)


async def _make_sure(tools: Tools, id_: str, refusal: Rejected) -> None:
    """Raise a refusal to end a membership again, unless it has ended or is not there."""
    if isinstance(refusal, Conflict) and (await tools.whop.membership(id_)).status not in ENDED:
        raise refusal


# --- what names no member


async def membership(tools: Tools, claim: Claim, id_: str) -> None:
    """Find whose membership it is, and pass on to the member what waited for it."""
    await _pass_on(tools, claim, (await tools.whop.membership(id_)).user)


async def payment(tools: Tools, claim: Claim, id_: str) -> None:
    """Find whose payment it is, and pass on to the member what waited for it."""
    paid = await tools.whop.payment(id_)
    user = paid.user
    if user is None and paid.membership:
        user = (await tools.whop.membership(paid.membership)).user
    await _pass_on(tools, claim, user)


async def _pass_on(tools: Tools, claim: Claim, user: str | None) -> None:
    if user is None:
        why = "nobody has claimed it, or a business bought it; nothing was changed"
        log.warning("membership.without_user", why=why)
        step = Step(tools.clock(), "membership.without_user", why=why, deliveries=claim.taken)
        await tools.store.trail(claim.subject, [step])
        return
    now = milliseconds(tools.clock())
    for reason in claim.taken:
        await tools.inbox.mark(f"member:{user}", reason, now)
    step = Step(tools.clock(), "subject.passed_on", id=user, deliveries=claim.taken[:TOOK])
    await tools.store.trail(claim.subject, [step])


async def nobody(_: Tools, claim: Claim, __: str) -> None:
    """Report a delivery that names nobody whom we could look at."""
    log.warning("delivery.names_nobody", types=sorted({d.type for d in claim.deliveries}))


# --- a room and its channel


async def room(tools: Tools, claim: Claim, key: str) -> datetime | None:
    """Bring a room into being, or up to date with the rules and the time.

    Where each occurrence has a room of its own, the room itself is none: it has them made.
    """
    found, (_, part) = await _room(tools, key), split(key)
    if found is None:
        return None
    if found.one_room_per == "occurrence" and part is None:
        return await _make_ahead(tools, found)
    place = await tools.store.place(key)
    begun = place and (place.ready or place.making or place.product)
    if not begun and FIRST_PURCHASE not in claim.reasons:
        due = found.due_from(part, tools.clock())
        if due is None or due > tools.clock():
            return due
    try:
        await provision(tools, found, part, anew=VERIFY in claim.reasons)
    except Missing as missing:
        await _gone(tools, key, place, missing)
    return None


async def _gone(tools: Tools, key: str, place: Place | None, missing: Missing) -> None:
    """Forget an archived room that somebody deleted on Whop; any other is missed."""
    if not (place and place.archived):
        raise missing
    await tools.store.gone(key)
    log.info("room.gone", room=key, id=place.experience)


async def _make_ahead(tools: Tools, found: Room) -> datetime | None:
    """Have a room made for each occurrence that is near; returns when the next one comes near."""
    now = tools.clock()
    near, coming = found.to_make(now)
    for one in near:
        key = instance(found, one.id)
        place = await tools.store.place(key)
        if not (place and place.ready and place.occurrence == one):
            await tools.inbox.mark(f"room:{key}", "near", milliseconds(now))
    return coming


async def channel(tools: Tools, claim: Claim, key: str) -> datetime | None:
    """Set a channel to what its room should be now; returns the next change."""
    found = await _room(tools, key)
    if found is None:
        return None
    place = await tools.store.place(key)
    if place and place.ready:
        try:
            return await set_channel(tools, found, key, place, released=RELEASED in claim.reasons)
        except Missing as missing:
            await _gone(tools, key, place, missing)
            return None
    await provision(tools, found, split(key)[1])
    return None


async def next_planned(tools: Tools, subject: str) -> datetime | None:
    """Return when a room's channel changes next by its plan; None for every other subject.

    A lock that failed for good must not take the next one with it.
    """
    kind, _, key = subject.partition(":")
    found = await _room(tools, key) if kind == "channel" else None
    if found is None:
        return None
    place = await tools.store.place(key)
    schedule = found.schedule_of(split(key)[1], place.occurrence if place else None)
    now, coming = tools.clock(), next_change(schedule, tools.clock())
    archives = schedule.archived_from
    changes = [coming.at if coming else None, archives if archives and archives > now else None]
    return min((at for at in changes if at), default=None)


async def _room(tools: Tools, key: str) -> Room | None:
    name, part = split(key)
    found = tools.rules.room(name)
    apart = found and (found.divided if part else bool(found.cohort))
    if found is None or bool(apart) != (part is not None):
        log.warning("room.unruled", room=key, why="the rules have no such room; it is left alone")
        return None
    return await with_dates(tools, found)


async def with_dates(tools: Tools, room: Room) -> Room:
    """Return a room with the dates that its calendar says, where it has one."""
    if room.calendar is None:
        return room
    dated = await tools.calendars.occurrences(room.key, room.calendar)
    return replace(room, schedule=replace(room.schedule, dated=dated))


KINDS: Final[dict[str, Callable[[Tools, Claim, str], Awaitable[datetime | None]]]] = {
    "member": member,
    "membership": membership,
    "payment": payment,
    "room": room,
    "channel": channel,
}
