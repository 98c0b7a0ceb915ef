"""The jobs that arq runs, and what becomes of one that fails.

arq only wakes us: it calls `run` with a subject. Whether there is anything to do, how often it was
tried and when it has failed for good is ours to know (`worker.subjects`).
"""

from collections.abc import Collection
from datetime import timedelta

import structlog

from worker import channels, converge
from worker.policy import retry
from worker.policy.rooms import split
from worker.subjects import Claim, milliseconds
from worker.tools import Tools
from worker.whop.errors import Forbidden, Unavailable, WhopError

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
            await _settle(tools, claim)
        finally:  # nothing happens where it was settled
            await tools.subjects.release(claim)


async def _settle(tools: Tools, claim: Claim) -> None:
    late = retry.gives_up(claim.first_try, tools.clock())
    if late and claim.tries > retry.MOST:
        await _bury(tools, claim, RuntimeError("it takes its worker down each time"))
        return
    try:
        look_again = await converge.converge(tools, claim)
    except Forbidden as error:
        await _bury(tools, claim, error)
    except WhopError as error:
        after = (isinstance(error, Unavailable) and error.after) or 0
        await _again(tools, claim, error, for_good=late, after=after)
    except Exception as error:  # a bug of ours must not cost a buyer their place
        log.exception("job.broke")
        await _again(tools, claim, error, for_good=late)
    else:
        await tools.subjects.done(claim, tools.clock(), look_again)


async def _again(
    tools: Tools, claim: Claim, error: Exception, *, for_good: bool, after: float = 0
) -> None:
    if for_good:
        await _bury(tools, claim, error)
        return
    now = tools.clock()
    asked = min(timedelta(seconds=after), retry.LONGEST)
    pause = max(retry.pause(claim.tries, tools.rng), asked)
    log.warning("job.retrying", why=_words(error), seconds=round(pause.total_seconds(), 1))
    await tools.subjects.later(claim, now, now + pause)


async def _bury(tools: Tools, claim: Claim, error: Exception) -> None:
    log.error("job.died", why=_words(error), next=_advice(error))
    next_planned = await converge.next_planned(tools, claim.subject)
    await tools.subjects.dead(claim, tools.clock(), _words(error), next_planned)


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, WhopError) else f"{type(error).__name__}: {error}"


def _advice(error: Exception) -> str:
    """Say what a person should do about a job that died."""
    if isinstance(error, Forbidden):
        return (
            "give the key this permission (or a valid key) and restart `usher work`: it tries again"
        )
    return "mend what is refused; a restart of `usher work`, or news of the subject, tries again"


async def sweep(tools: Tools) -> None:
    """Mend what has no job or a dead worker's; runs every ten seconds on one of the workers."""
    for subject in await tools.subjects.sweep(tools.clock()):
        log.warning("job.mended", subject=subject, why="it was due and nobody worked on it")


async def watch(tools: Tools) -> None:
    """Look for channels that somebody changed by hand; runs every minute on one of the workers."""
    try:
        await channels.watch(tools)
    except WhopError as error:
        log.warning("channels.unseen", why=_words(error))


async def read_calendars(tools: Tools) -> None:
    """Read the rooms' calendars; what moved in them is planned anew at once."""
    await replan(tools, await tools.calendars.refresh(tools.rules.calendars))


async def replan(tools: Tools, rooms: Collection[str]) -> None:
    """Have rooms looked at, with everything that exists of them."""
    now = milliseconds(tools.clock())
    for key in rooms:
        await tools.inbox.mark(f"room:{key}", "calendar", now)
    for key in await tools.store.instances() if rooms else ():
        if split(key)[0] in rooms:
            await tools.inbox.mark(f"channel:{key}", "calendar", now)


async def refresh_team(tools: Tools) -> None:
    """Ask Whop who the account's admins are; members who became or ceased to be one are due."""
    before = await tools.store.team()
    try:
        team = await tools.whop.admins()
    except (WhopError, LookupError, TypeError, ValueError) as error:
        log.warning("team.unknown", why=_words(error))
        return
    soon = milliseconds(tools.clock() + timedelta(seconds=2))
    for user in sorted(team ^ before) if before is not None else ():
        await tools.inbox.mark(f"member:{user}", "team", soon)
    await tools.store.save_team(team)


async def open_up(tools: Tools) -> None:
    """See to it, at a worker's start, that every room is as the rules and the time want it.

    What failed for good is tried again: a person restarts a worker who has mended something.
    """
    now = milliseconds(tools.clock())
    ahead = [r.key for r in tools.rules.rooms if not r.cohort and r.provision == "ahead"]
    for key in {*ahead, *await tools.store.instances()}:
        await tools.inbox.mark(f"room:{key}", "start", now)
    for subject in await tools.subjects.deaths():
        await tools.inbox.mark(subject, "revived", now)
