"""The jobs that arq runs, and what becomes of one that fails.

arq only wakes us: it calls `run` with a subject. Whether there is anything to do, how often it was
tried and when it has failed for good is ours to know (`worker.subjects`).
"""

import asyncio
from datetime import datetime, timedelta

import structlog

from worker.converge import converge
from worker.policy import retry
from worker.subjects import Claim, milliseconds
from worker.tools import Tools
from worker.whop.errors import Forbidden, Rejected, Unavailable, WhopError

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
        except asyncio.CancelledError:
            await tools.subjects.release(claim)
            raise


async def _settle(tools: Tools, claim: Claim) -> None:
    late = retry.gives_up(claim.first_try, tools.clock())
    if late and claim.tries > retry.MOST:
        await _bury(tools, claim, RuntimeError("it takes its worker down each time"))
        return
    try:
        look_again = await converge(tools, claim)
    except Forbidden as error:
        await _bury(tools, claim, error, permission=True)
    except Rejected as error:
        await _again(tools, claim, error, for_good=retry.refused_for_good(claim.tries))
    except Unavailable as error:
        await _again(tools, claim, error, for_good=late, after=error.after or 0)
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
    pause = max(retry.pause(claim.tries, tools.rng), timedelta(seconds=after))
    log.warning("job.retrying", why=_words(error), seconds=round(pause.total_seconds(), 1))
    await tools.subjects.later(claim, now, now + pause)


async def _bury(tools: Tools, claim: Claim, error: Exception, *, permission: bool = False) -> None:
    log.error("job.died", why=_words(error), next=_advice(error))
    await tools.subjects.dead(claim, tools.clock(), _words(error), permission=permission)


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, WhopError) else f"{type(error).__name__}: {error}"


def _advice(error: Exception) -> str:
    """Say what a person should do about a job that died."""
    if isinstance(error, Forbidden):
        return (
            "give the key this permission (or a valid key) and restart `usher work`: it tries again"
        )
    return "mend what Whop refuses; the next delivery for this subject tries again"


async def sweep(tools: Tools) -> None:
    """Mend what has no job or a dead worker's; runs every ten seconds on one of the workers."""
    for subject in await tools.subjects.sweep(tools.clock()):
        log.warning("job.mended", subject=subject, why="it was due and nobody worked on it")


async def refresh_team(tools: Tools) -> None:
    """Ask Whop who the account's admins are; members who became or ceased to be one are due."""
    before = await tools.store.team()
    try:
        team = await tools.whop.admins()
    except WhopError as error:
        log.warning("team.unknown", why=str(error))
        return
    await tools.store.save_team(team)
    for user in sorted(team ^ before) if before is not None else ():
        await tools.inbox.mark(f"member:{user}", "team", milliseconds(tools.clock()))


async def open_up(tools: Tools) -> None:
    """See to it, at a worker's start, that every room is as the rules and the time want it."""
    now = milliseconds(tools.clock())
    ahead = [r.key for r in tools.rules.rooms if not r.cohort and r.provision == "ahead"]
    for key in {*ahead, *await tools.store.instances()}:
        await tools.inbox.mark(f"room:{key}", "start", now)
    for subject, death in (await tools.subjects.deaths()).items():
        if death.permission:
            await _revive(tools, subject, death.deliveries, tools.clock())


async def _revive(tools: Tools, subject: str, reasons: tuple[str, ...], now: datetime) -> None:
    for reason in reasons or ("revived",):
        await tools.inbox.mark(subject, reason, milliseconds(now))
