"""What a worker finds out before it serves anybody: what it is short of, and what is ours."""

from typing import Any

import structlog

from webhooks.durability import WANTED, Unknowable, shortcomings
from worker.proof.recall import compare, recall
from worker.tools import Tools
from worker.whop.errors import WhopError

log = structlog.get_logger()


async def look_round(tools: Tools, redis: Any) -> None:
    """Say, before anybody is served, what Redis or the key is short of."""
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
