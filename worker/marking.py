"""Marking: write on the grants that are on Whop that they are Usher's, in what the quota has left.

By its mark a grant is known again after a loss of Redis. It delays no buyer: where the creation did
not take the mark, and after an invitation or a link, it follows here.
"""

from typing import Final

import structlog

from worker.links import refused
from worker.policy import ways
from worker.policy.marks import mark
from worker.policy.ways import Way
from worker.tools import Tools
from worker.whop.errors import Missing, Rejected, WhopError

AT_ONCE: Final = 60
"""Grants that are marked in a minute: a tenth of what Whop allows."""

log = structlog.get_logger()


async def mark_grants(tools: Tools) -> None:
    """Mark some of the grants that bear no mark yet; one process does it at a time."""
    refusals = await tools.store.refusals()
    if ways.stands(refusals, Way.MARK, tools.clock()) or not await tools.store.to_mark():
        return
    whop = tools.in_background().whop
    async with tools.leases.holding("marking"):
        waiting = await tools.store.to_mark()
        for id_, (room, cohort) in list(waiting.items())[:AT_ONCE]:
            try:
                await whop.mark(id_, mark(tools.rules.account, room, cohort))
            except Missing:
                log.info("grant.not_marked", membership=id_, why="Whop shows no such membership")
            except Rejected as refusal:
                await refused(tools, Way.MARK, refusal)
                return
            except WhopError as error:
                log.info("grant.not_marked", membership=id_, why=str(error))
                return
            await tools.store.marked(id_)
