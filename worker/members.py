"""A member: what their purchases open, and what none opens any more.

The memberships are read from Whop, policy decides, and `worker.grants` does what was decided.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import structlog
from msgspec import structs

from worker.doubts import LONG_AGO
from worker.grants import apply
from worker.memory.members import Member
from worker.memory.trail import Step
from worker.observe import Observed, confirm, look_again, observe
from worker.policy import ways
from worker.policy.access import (
    ENTITLING,
    GIVING,
    Action,
    Decision,
    Give,
    Report,
    decide,
    strangers,
    waits_until,
)
from worker.policy.differences import found_grant
from worker.policy.marks import is_marked
from worker.policy.news import is_news
from worker.policy.refunds import Cancel
from worker.policy.rooms import Room, instance
from worker.policy.ways import Refusals, Way
from worker.proof.recall import RECALLED, notice, recall
from worker.reasons import FIRST_PURCHASE, TRANSFERRED, VERIFY
from worker.refunds import SOON, cancel, look_at_payments
from worker.rooms import with_dates
from worker.subjects import TOOK, Claim, milliseconds
from worker.taking import Look, may_go
from worker.tools import Tools
from worker.whop.errors import Rejected, Unavailable, WhopError
from worker.whop.types import Membership

log = structlog.get_logger()


async def member(tools: Tools, claim: Claim, user: str) -> datetime | None:
    """Give a member the rooms that their purchases open, and take what none opens any more.

    A room, or a payment, that cannot be dealt with does not hold up the others.
    """
    known = await tools.store.member(user)
    tools.keep_up()
    if (await notice(tools) or not known.rules) and await recall(tools):
        known = await tools.store.member(user)
        tools.keep_up()
    now = tools.clock()
    if not _worth_a_look(tools, claim, known, now):
        log.info("member.unchanged")
        return known.look_again
    unknown = known.looked is None or RECALLED in claim.reasons
    observed = await observe(tools, user, known, claim.deliveries)
    known.rules, known.looked = tools.rules.mark, now
    money = await look_at_payments(tools, claim, user, known, observed)
    errors = money.errors
    team = user in (await tools.store.team() or ())
    await _follow_transfers(tools, user, observed)

    refused = await _refused(tools, known)
    open_again = refused is not None and ways.in_use("auto", refused, now) is not Way.LINK

    def decided() -> Decision:
        facts = known.facts(team=team, open_again=open_again)
        return decide(tools.rules.rooms, observed.rows, facts, now)

    decision = decided()
    if await _know_again(tools, user, known, observed.rows, decision, every=unknown):
        decision = decided()
    if await confirm(tools, user, known, observed, decision):
        decision = decided()
    decision = await _strangers(tools, known, observed.rows, decision, team=team)
    await _open_on_purchase(tools, observed.rows)
    await _count_seats(tools, user, observed.rows)
    took = claim.taken[:TOOK]
    steps = [
        *observed.steps,
        *money.steps,
        *(Step(now, r.code, why=r.why) for r in decision.reports),
    ]
    look = Look(user, known, observed, agreed=VERIFY in claim.reasons)
    actions = await may_go(tools, look, (*money.cancels, *decision.actions))
    steps += look.steps
    done, failed = await _do(tools, look, actions)
    steps += done
    errors += failed
    offered = waits_until(tools.rules.rooms, known.grants, now)
    instants = (decision.look_again, look.look_again, look_again(known), offered, money.look_again)
    known.look_again = min((at for at in instants if at), default=None)
    for report in decision.reports:
        log.warning(report.code, why=report.why)
    if not (decision.actions or errors or actions):
        log.info("member.in_order", memberships=len(observed.rows))
    known.unfinished = bool(errors)
    await tools.store.save_member(user, known)
    await _note_unmarked(tools, known, observed)
    await tools.store.trail(
        claim.subject, [structs.replace(step, deliveries=took) for step in steps]
    )
    _raise_first(errors)
    return known.look_again


async def _do(
    tools: Tools, look: Look, actions: Sequence[Action | Cancel]
) -> tuple[list[Step], list[WhopError]]:
    """Do what was decided; returns what the trail says of it, and what failed."""
    user, known = look.user, look.known
    steps: list[Step | None] = []
    errors: list[WhopError] = []
    for action in actions:
        try:
            if isinstance(action, Cancel):
                steps.append(await cancel(tools, user, known, action))
                # The seats go with what Whop shows then.
                look.look_again = tools.clock() + SOON
            else:
                steps.append(await apply(tools, user, known, action))
        except WhopError as error:
            known.salt += isinstance(error, Rejected)
            errors.append(error)
    return [step for step in steps if step], errors


async def _refused(tools: Tools, known: Member) -> Refusals | None:
    """Return what Whop refuses the account, if a link of this member's hangs on it."""
    waiting = any(grant.offered and grant.link for grant in known.grants.values())
    auto = any(room.grant == "auto" for room in tools.rules.rooms)
    return await tools.store.refusals() if waiting and auto else None


async def _strangers(
    tools: Tools, known: Member, rows: Sequence[Membership], decision: Decision, *, team: bool
) -> Decision:
    """Add what is to be done about memberships on our own plans that nobody is due a seat for.

    Where Whop has not shown all that it told of, nobody is called a stranger.
    """
    given = {grant.membership for grant in known.grants.values()}
    sold = {product for room in tools.rules.rooms for product in room.products}
    others = {
        m.product
        for m in rows
        if m.status in GIVING and m.product and m.product not in sold and m.id not in given
    }
    hidden = {} if known.unshown else await tools.store.hidden(sorted(others))
    if not hidden:
        return decision
    now, account = tools.clock(), tools.rules.account
    facts = known.facts(team=team)
    found = strangers(tools.rules.rooms, rows, facts, hidden, now=now, account=account)
    refused = await tools.store.refusals()
    out = [one for one in found if one.ours or ways.removes_strangers(one.room, refused, now)]
    reports = [
        Report("stranger.reported", f"room {one.room.key}: {one.membership}: {one.why}")
        for one in found
        if one not in out
    ]
    return replace(
        decision,
        actions=(*decision.actions, *out),
        reports=(*decision.reports, *reports),
    )


async def _note_unmarked(tools: Tools, known: Member, observed: Observed) -> None:
    """Have the live grants marked on Whop that bear no mark of ours yet."""
    missing = {
        grant.membership: (key, grant.cohort)
        for key, grant in known.grants.items()
        if grant.membership
        and not grant.taken
        and (shown := observed.memberships.get(grant.membership))
        and not is_marked(shown.metadata, tools.rules.account, (key,), grant.cohort)
    }
    if missing:
        await tools.store.unmarked(missing)


async def _follow_transfers(tools: Tools, user: str, observed: Observed) -> None:
    """Have a seat follow a membership that Whop moved to another user, and both be looked at.

    Whop's transfer keeps the membership's id and changes its user.
    """
    soon = milliseconds(tools.clock())
    for after in {after for after, _ in observed.moved.values() if after}:
        await tools.inbox.mark(f"member:{after}", TRANSFERRED, soon)
    new = [m for m in observed.rows if m.id not in observed.before]
    had = await tools.store.note_holder(user, [m.id for m in new])
    for one in new:
        other = had.get(one.id)
        if other is None:
            continue
        for room in tools.rules.rooms:
            if room.cohort and one.product in room.products:
                await tools.store.move_seat(room.key, other, user)
        log.warning("membership.transferred", membership=one.id, before=other, after=user)
        await tools.inbox.mark(f"member:{other}", TRANSFERRED, soon)


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
        grant = found_grant(room, hidden, memberships, tools.rules.account)
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
