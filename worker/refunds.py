"""Refunds and disputes: what Whop shows of the payments, and what is cancelled because of it.

Whether a membership goes is `worker.policy.refunds`' to say. It takes two looks: a payment that was
seen to be paid back, or lost, is read once more by its own id, with its membership, right before.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from worker.doubts import LONG_AGO, note_payment
from worker.grants import shown_ended
from worker.memory.members import Member
from worker.memory.trail import Step
from worker.observe import Observed
from worker.policy import evidence, refunds
from worker.policy.access import ENDED
from worker.policy.evidence import Unshown
from worker.policy.news import Seen
from worker.policy.refunds import Cancel
from worker.reasons import VERIFY
from worker.subjects import Claim
from worker.tools import Tools
from worker.whop.answers import last
from worker.whop.errors import Conflict, Missing, WhopError
from worker.whop.types import Membership, Payment

SOON: Final = timedelta(minutes=1)
"""When to look again where Whop's list of payments is behind the payment itself, and after a
cancellation that no delivery told of."""

log = structlog.get_logger()


@dataclass(slots=True)
class Money:
    """What a look at a member's payments came to: what is to be cancelled, and what failed.

    `look_again` is when Whop may show more, and `steps` what the history keeps. `behind` are the
    payments that Whop's list leaves out.
    """

    cancels: list[Cancel] = field(default_factory=list)
    errors: list[WhopError] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    look_again: datetime | None = None
    behind: set[str] = field(default_factory=set)


async def look_at_payments(
    tools: Tools, claim: Claim, user: str, known: Member, observed: Observed
) -> Money:
    """Read the payments behind refunds and disputes, where a room's rules ask what came of them.

    A verification reads all of the member's: news of them may be lost.
    """
    money = Money()
    if not any(refunds.asks(room) for room in tools.rules.rooms):
        return money
    now = tools.clock()
    for one in claim.deliveries:
        back = one.about in ("refund", "dispute") and one.status not in refunds.REFUND_FAILED
        if back and one.payment:
            known.told.setdefault(one.payment, Unshown(now))
    if VERIFY in claim.reasons:
        await _read_all(tools, user, known, money)
    await _read_some(tools, claim, known, money)
    if user not in (await tools.store.team() or ()):
        await _decide(tools, user, known, observed, money)
    _settle(known, money, now)
    return money


async def _read_all(tools: Tools, user: str, known: Member, money: Money) -> None:
    try:
        paid = [payment async for payment in tools.whop.payments(user=user)]
    except WhopError as error:
        money.errors.append(error)
        return
    for payment in sorted(paid, key=lambda one: one.created_at or LONG_AGO):
        note_payment(known, payment)


async def _read_some(tools: Tools, claim: Claim, known: Member, money: Money) -> None:
    """Read what deliveries name, and what was told before and is not shown yet.

    A payment that is 404, as one may be right after its checkout, or that shows nothing of what
    was told, is looked at again.
    """
    doubtful = known.refunded.keys() | known.disputed.keys()
    named = {d.payment for d in claim.deliveries if d.payment and d.membership in doubtful}
    for id_ in sorted(named | known.told.keys()):
        try:
            payment = await tools.whop.payment(id_)
        except Missing as error:
            if id_ not in known.told:
                money.errors.append(error)
            continue
        except WhopError as error:
            money.errors.append(error)
            continue
        note_payment(known, payment)
        if id_ in known.told and refunds.shown(payment.substatus):
            known.told[id_] = replace(known.told[id_], status=payment.substatus)


async def _decide(tools: Tools, user: str, known: Member, observed: Observed, money: Money) -> None:
    """Take the second look at memberships whose money seems to be gone."""
    doubtful = known.refunded.keys() | known.disputed.keys()
    wanted = [
        one
        for one in observed.rows
        if one.id in doubtful and refunds.may_end(tools.rules.rooms, one)
    ]
    if not wanted:
        return
    try:
        listed = {one.id: one async for one in tools.whop.payments(user=user)}
        for one in wanted:
            await _second_look(tools, known, one, listed, money)
    except WhopError as error:
        money.errors.append(error)


async def _second_look(
    tools: Tools, known: Member, one: Membership, listed: dict[str, Payment], money: Money
) -> None:
    doubted = known.refunded.get(one.id, {}).keys() | known.disputed.get(one.id, {}).keys()
    now_shown = await tools.whop.membership(one.id)
    if now_shown.user not in (None, one.user):
        return
    if not doubted <= listed.keys():  # a list that is behind may leave out a later payment, too
        money.behind |= doubted
        return
    read = {id_: await tools.whop.payment(id_) for id_ in sorted(doubted)}
    verdict = refunds.judge(tools.rules.rooms, now_shown, (listed | read).values())
    if isinstance(verdict, Cancel):
        told = verdict.payment in known.told
        money.cancels.append(replace(verdict, told=told))
    elif verdict and doubted & known.told.keys():
        step = Step(tools.clock(), "purchase.kept", verdict.why, id=one.id)
        money.steps.append(step)
        log.info("purchase.kept", membership=one.id, why=verdict.why)


def _settle(known: Member, money: Money, now: datetime) -> None:
    """Keep the payments whose end Whop does not show yet, or whose membership still runs."""
    open_ = {one.payment for one in money.cancels} | money.behind
    left: dict[str, Unshown] = {}
    for id_, one in known.told.items():
        if one.status is not None and not (id_ in open_ or money.errors):
            continue
        if one.status is None and evidence.given_up(one, now):
            why = f"Whop told that the money of {id_} went back, and has not shown it for a day"
            money.steps.append(Step(now, "whop.never_showed", why=why, id=id_))
            log.warning("whop.never_showed", id=id_, why=why)
        after = evidence.waits(one, now)
        if after.due:
            left[id_] = after
    known.told = left
    instants = [one.due for one in left.values() if one.due]
    instants += [now + SOON] if money.behind else []
    money.look_again = min(instants, default=None)


async def cancel(tools: Tools, user: str, known: Member, action: Cancel) -> Step:
    """Cancel a paid membership whose money went back; what is ended already is just as well.

    Raises:
        Unavailable, Rejected: Whop did not let it happen.
    """
    id_ = action.membership
    try:
        ended = await tools.whop.cancel(id_, key=f"usher/cancel/{id_}/{known.salt}")
        known.seen[id_] = Seen.of(ended)
        proven = ended.status in ENDED
    except (Conflict, Missing) as refusal:
        proven = await shown_ended(tools, user, known, id_, refusal)
    what = "purchase.cancelled" if proven else "purchase.end_unproven"
    say = log.info if proven else log.warning
    say(what, room=action.room.key, membership=id_, payment=action.payment, why=action.why)
    return Step(tools.clock(), what, action.why, action.room.key, id_, call=last())
