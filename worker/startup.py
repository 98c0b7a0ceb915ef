"""What a worker finds out at its start: what is ours before it serves anybody, and the rest."""

import asyncio
import itertools
from typing import Any, Final

import structlog
from redis.exceptions import RedisError

from webhooks.durability import WANTED, Unknowable, shortcomings
from webhooks.inbox import InboxUnavailable
from worker.jobs import refresh_team
from worker.opening import open_up
from worker.proof.recall import compare, recall
from worker.tools import Tools
from worker.whop.errors import WhopError

PAUSES: Final = (5, 15, 60)
"""Seconds after which a look that was broken off begins again; then always the last of them."""

log = structlog.get_logger()


async def look_round(tools: Tools, redis: Any) -> None:
    """Look round beside what is at work, and anew where it is broken off, until it is done."""
    for pause in itertools.chain(PAUSES, itertools.repeat(PAUSES[-1])):
        try:
            await doubt(tools, redis)
            await refresh_team(tools)
            await open_up(tools)
        except (WhopError, RedisError, OSError, InboxUnavailable) as error:
            log.warning("rooms.unseen", why=str(error), seconds=pause)
        except Exception:  # or nobody would see why rooms are not as they should be
            log.exception("start.broke", next=f"it looks round again in {pause} s")
        else:
            return
        await asyncio.sleep(pause)


async def doubt(tools: Tools, redis: Any) -> None:
    """Say what Redis or the key is short of."""
    try:
        found = await shortcomings(redis)
    except Unknowable as why:
        log.warning("redis.unchecked", why=str(why), wanted=WANTED)
    else:
        if found:
            log.warning("redis.doubted", found=found, wanted=WANTED)
    try:
        await tools.sight.refresh()
    except WhopError as error:  # it is a look, and ends nobody
        log.warning("permissions.unknown", why=str(error))


async def know_ours(tools: Tools) -> None:
    """Learn from Whop what is ours, if Redis is new, emptied or an older copy."""
    try:
        await compare(tools)
        await recall(tools)
    except WhopError as error:
        log.warning(
            "mirror.unknown", why=str(error), next="it is asked again before anybody is let in"
        )
