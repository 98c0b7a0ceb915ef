"""Renamed rooms: a start takes over what the rules say was called otherwise, and makes no second.

Which room is meant by which key is `worker.policy.renames`' to say.
"""

from dataclasses import replace

import structlog

from worker.memory.trail import Step
from worker.policy.renames import Renames, renames, ruled_as, why_both, why_refused
from worker.rules import Rules
from worker.store import Store
from worker.tools import Tools

log = structlog.get_logger()


async def look(rules: Rules, store: Store) -> Renames:
    """Find the rooms of the rules that exist under another key."""
    keys = [key for room in rules.rooms for key in (room.key, *room.was)]
    counted = await store.counted(keys) if any(room.was for room in rules.rooms) else frozenset()
    return renames(rules.rooms, await store.all_places(), counted)


async def as_it_is(rules: Rules, store: Store) -> tuple[Rules, dict[str, str]]:
    """Return the rules for whoever only looks, and what is to be said of rooms by their keys.

    A room that is still to be taken over has its old key there, and one that is not made is not.
    """
    found = await look(rules, store)
    return replace(rules, rooms=ruled_as(rules.rooms, found, before=True)), found.said


async def as_it_looks(tools: Tools) -> Tools:
    """Return what a command works with that changes no room's key."""
    rules, said = await as_it_is(tools.rules, tools.store)
    return replace(tools, rules=rules, not_made=said)


async def take_over(tools: Tools) -> Tools:
    """Take over the rooms that were called otherwise; returns what a worker works with from now on.

    One process does it at a time. A room that would be a second one is left out, and all else goes
    on.
    """
    async with tools.leases.holding("renaming"):
        found = await look(tools.rules, tools.store)
        for new, old in found.taken.items():
            members = await tools.store.take_over(old, new)
            log.warning("room.taken_over", room=new, was=old, members=members)
            step = Step(tools.clock(), "room.taken_over", f"it was {old}", new)
            await tools.store.trail(f"room:{new}", [step])
    said = {new: why_refused(new, old) for new, old in found.refused.items()}
    said |= {new: why_both(new, old) for new, old in found.both.items()}
    for new, why in said.items():
        log.error("room.key_unclear", room=new, why=why)
    rules = replace(tools.rules, rooms=ruled_as(tools.rules.rooms, found, before=False))
    return replace(tools, rules=rules, not_made=said)
