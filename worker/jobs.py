"""The jobs that arq runs, and what becomes of one that fails.

arq only wakes us: it calls `run` with a subject. Whether there is anything to do, how often it was
tried and when it has failed for good is ours to know (`worker.subjects`).
"""

from datetime import datetime, timedelta
from typing import Final

import structlog
from redis.exceptions import RedisError

from webhooks.inbox import InboxUnavailable
from worker import channels, converge
from worker.calendars.planning import replan
from worker.catchup import Found
from worker.fence import Lost
from worker.policy import retry
from worker.subjects import Claim, milliseconds
from worker.tools import Tools
from worker.whop.errors import (
    Blind,
    Forbidden,
    Missing,
    NotAvailable,
    Rejected,
    Unavailable,
    WhopError,
)
from worker.whop.transport import UNKNOWN_KEY

BLIND_AGAIN: Final = timedelta(minutes=10)
"""When to look again where the key may not see members; as soon as it may, all are looked at."""

log = structlog.get_logger()


async def run(tools: Tools, subject: str) -> None:
    """Bring a subject up to date if it is due, and settle what came of it."""
    claim = await tools.subjects.claim(subject, tools.clock())
    if claim is None:
        return
    deliveries = [delivery.id for delivery in claim.deliveries]
    with structlog.contextvars.bound_contextvars(
        subject=subject, deliveries=deliveries, attempt=claim.tries
    ):
        try:
            await _when_whop_is_there(tools, claim)
        except Lost as lost:
            log.warning("lease.lost", lease=str(lost), next="whoever has it does the work")
        finally:  # nothing happens where it was settled
            await tools.subjects.release(claim)


async def _when_whop_is_there(tools: Tools, claim: Claim) -> None:
    """Wait, claimed, while Whop is down: the sweep would take an unclaimed job for a dead one."""
    if await tools.breaker.gate(ahead=claim.subject.startswith(("room:", "channel:"))):
        await _settle(tools, claim)
    else:
        await _hold(tools, claim, "Whop is down")


async def _settle(tools: Tools, claim: Claim) -> None:
    began = claim.first_try + tools.breaker.time_lost(claim.first_try)
    late = retry.gives_up(began, tools.clock())
    if late and claim.tries > retry.MOST:
        await _bury(tools, claim, RuntimeError("it takes its worker down each time"))
        return
    try:
        look_again = await converge.converge(tools, claim)
    except Lost:
        raise
    except Blind as error:
        await tools.sight.blinded(claim.subject)
        await _hold(tools, claim, _words(error), BLIND_AGAIN)
    except Forbidden as error:
        await _bury(tools, claim, error)
    except WhopError as error:
        if tools.breaker.open and isinstance(error, Unavailable):
            await _hold(tools, claim, _words(error))
            return
        after = (isinstance(error, Unavailable) and error.after) or 0
        await _again(tools, claim, error, for_good=late, after=after)
    except Exception as error:  # a bug of ours must not cost a buyer their place
        log.exception("job.broke")
        await _again(tools, claim, error, for_good=late)
    else:
        await tools.subjects.done(claim, tools.clock(), look_again)
        tools.meters.ended(claim.subject, "done")


async def _hold(
    tools: Tools, claim: Claim, why: str, pause: timedelta = timedelta(seconds=1)
) -> None:
    """Put a job off that is not to blame, for Whop is down or hides something: it is no try."""
    now = tools.clock()
    await tools.subjects.held(claim, now, now + pause, why)
    tools.meters.ended(claim.subject, "held")


async def _again(
    tools: Tools, claim: Claim, error: Exception, *, for_good: bool, after: float = 0
) -> None:
    if for_good:
        await _bury(tools, claim, error)
        return
    now = tools.clock()
    asked = min(timedelta(seconds=after), retry.LONGEST)
    pause = max(retry.pause(claim.tries, tools.rng), asked)
    more = {"next": _advice(error)} if isinstance(error, Rejected) else {}
    seconds = round(pause.total_seconds(), 1)
    log.warning("job.retrying", why=_words(error), seconds=seconds, **more)
    await tools.subjects.later(claim, now, now + pause, _words(error))
    tools.meters.ended(claim.subject, "later")


async def _bury(tools: Tools, claim: Claim, error: Exception) -> None:
    log.error("job.died", why=_words(error), next=_advice(error))
    next_planned = await converge.next_planned(tools, claim.subject)
    await tools.subjects.dead(claim, tools.clock(), _words(error), next_planned)
    tools.meters.ended(claim.subject, "dead")


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, WhopError) else f"{type(error).__name__}: {error}"


def _advice(error: Exception) -> str:
    """Say what a person should do about a job that died."""
    if isinstance(error, Forbidden) and error.status == UNKNOWN_KEY:
        return "put a valid key into WHOP_API_KEY and restart `usher work`: it tries again"
    if isinstance(error, Forbidden):
        return "give the key what it lacks and restart `usher work`: it tries again"
    if isinstance(error, NotAvailable):
        return (
            "Whop does not let this account use it, whatever the key may: for seats say "
            'grant = "auto" in the room, which takes another way'
        )
    if isinstance(error, Missing):
        return "look on Whop whether somebody deleted it; `usher verify` names what is missing"
    return "mend what is refused; a restart of `usher work`, or news of the subject, tries again"


async def sweep(tools: Tools) -> None:
    """Mend what has no job or a dead worker's; runs every ten seconds on one of the workers."""
    now = tools.clock()
    mended = dict.fromkeys(await tools.subjects.sweep(now), "it was due and nobody worked on it")
    for subject in await tools.strays.mend(milliseconds(now)):
        mended[subject] = "something waited for it and it was not due"
    for subject, why in mended.items():
        log.warning("job.mended", subject=subject, why=why)
    tools.meters.mended(len(mended))


async def catch_up(tools: Tools, since: datetime | None = None) -> Found | None:
    """Take in what Whop could not deliver; every five minutes, and when a worker starts.

    Returns what was found, or None where that could not be seen; the reason is in the log.
    """
    if tools.breaker.open:
        return None
    async with tools.leases.trying("catch-up") as free:
        if not free:  # the next turn comes in five minutes
            log.info("catch_up.under_way", next="another process reads the log just now")
            return None
        try:
            found = await tools.catch_up.run(since=since)
        except (WhopError, InboxUnavailable, RedisError) as error:
            log.warning("catch_up.broken_off", why=_words(error), next="it begins again by itself")
            return None
    tools.meters.caught_up(found.stored if found else 0)
    return found


async def watch(tools: Tools) -> None:
    """Look for channels that somebody changed by hand; runs every minute on one of the workers."""
    if tools.breaker.open:
        return
    try:
        await channels.watch(tools.in_background())
    except WhopError as error:
        log.warning("channels.unseen", why=_words(error))


async def read_calendars(tools: Tools) -> None:
    """Read the rooms' calendars; what moved in them is planned anew at once."""
    rooms = tools.rules.calendars
    changed = await tools.calendars.refresh(rooms)
    await replan(
        {key: rooms[key] for key in changed},
        calendars=tools.calendars,
        inbox=tools.inbox,
        store=tools.store,
        now=tools.clock(),
    )


async def refresh_team(tools: Tools) -> None:
    """Ask Whop who the account's admins are; members who became or ceased to be one are due."""
    before = await tools.store.team()
    try:
        team = await tools.in_background().whop.admins()
    except WhopError as error:
        log.warning("team.unknown", why=_words(error))
        return
    soon = milliseconds(tools.clock() + timedelta(seconds=2))
    for user in sorted(team ^ before) if before is not None else ():
        await tools.inbox.mark(f"member:{user}", "team", soon)
    await tools.store.save_team(team)


async def look_at_permissions(tools: Tools, *, only_if_blind: bool) -> None:
    """Ask what the key may do; each minute only while somebody waits for it."""
    if tools.breaker.open or (only_if_blind and not await tools.sight.waiting()):
        return
    try:
        await tools.sight.refresh()
    except WhopError as error:
        log.warning("permissions.unknown", why=_words(error))
