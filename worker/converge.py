"""Converge: observe a subject on Whop, let policy decide, apply the difference.

Each function that `KINDS` names takes a claimed subject to what should be true now, and returns
when to look again without being asked, or None. Doing it twice is doing it once. What waits for
the subject only says where to look; the truth is read from Whop.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

import structlog

from worker.members import member
from worker.memory.trail import Step
from worker.policy.rooms import split
from worker.policy.schedule import next_change
from worker.rooms import channel, room, ruled
from worker.subjects import TOOK, Claim, milliseconds
from worker.tools import Tools

log = structlog.get_logger()


async def converge(tools: Tools, claim: Claim) -> datetime | None:
    """Bring a subject up to date; returns when it wants the next look without news.

    Raises:
        Unavailable: wait and try again.
        Rejected: Whop refused a step.
    """
    kind, _, name = claim.subject.partition(":")
    return await KINDS.get(kind, nobody)(tools, claim, name)


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


async def next_planned(tools: Tools, subject: str) -> datetime | None:
    """Return when a room's channel changes next by its plan; None for every other subject.

    A lock that failed for good must not take the next one with it.
    """
    kind, _, key = subject.partition(":")
    found = await ruled(tools, key) if kind == "channel" else None
    if found is None:
        return None
    place = await tools.store.place(key)
    schedule = found.schedule_of(split(key)[1], place.occurrence if place else None)
    now, coming = tools.clock(), next_change(schedule, tools.clock())
    archives = schedule.archived_from
    changes = [coming.at if coming else None, archives if archives and archives > now else None]
    return min((at for at in changes if at), default=None)


KINDS: Final[dict[str, Callable[[Tools, Claim, str], Awaitable[datetime | None]]]] = {
    "member": member,
    "membership": membership,
    "payment": payment,
    "room": room,
    "channel": channel,
}
