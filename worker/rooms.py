"""A room and its channel: which room of the rules it is, and what is to be done about it now.

How a room is made is `worker.provision`'s, and how its channel is set `worker.channels`'.
"""

from dataclasses import replace
from datetime import datetime

import structlog

from worker.channels import set_channel
from worker.memory.places import Place
from worker.policy.rooms import Room, instance, split
from worker.provision import provision
from worker.reasons import FIRST_PURCHASE, RELEASED, START, VERIFY
from worker.subjects import Claim, milliseconds
from worker.tools import Tools
from worker.whop.errors import Missing

log = structlog.get_logger()


async def room(tools: Tools, claim: Claim, key: str) -> datetime | None:
    """Bring a room into being, or up to date with the rules and the time.

    Where each occurrence has a room of its own, the room itself is none: it has them made.
    """
    found, (_, part) = await ruled(tools, key), split(key)
    if found is None:
        return None
    if found.one_room_per == "occurrence" and part is None:
        return await _make_ahead(tools, found)
    place = await tools.store.place(key)
    begun = place and (place.ready or place.making or place.product)
    if not begun and FIRST_PURCHASE not in claim.reasons:
        due = found.due_from(part, tools.clock())
        if due is None or due > tools.clock():
            return due
    if place and place.ready and claim.reasons == {START} and not claim.deliveries:
        tools = tools.in_background()
    try:
        await provision(tools, found, part, anew=VERIFY in claim.reasons)
    except Missing as missing:
        await _gone(tools, key, place, missing)
    held = (await tools.store.stocks([found.key])).get(found.key) if found.plan else None
    return held.due if held else None


async def _gone(tools: Tools, key: str, place: Place | None, missing: Missing) -> None:
    """Forget an archived room that somebody deleted on Whop; any other is missed."""
    if not (place and place.archived):
        raise missing
    await tools.store.gone(key)
    log.info("room.gone", room=key, id=place.experience)


async def _make_ahead(tools: Tools, found: Room) -> datetime | None:
    """Have a room made for each occurrence that is near; returns when the next one comes near."""
    now = tools.clock()
    near, coming = found.to_make(now)
    for one in near:
        key = instance(found, one.id)
        place = await tools.store.place(key)
        if not (place and place.ready and place.occurrence == one):
            await tools.inbox.mark(f"room:{key}", "near", milliseconds(now))
    return coming


async def channel(tools: Tools, claim: Claim, key: str) -> datetime | None:
    """Set a channel to what its room should be now; returns the next change."""
    found = await ruled(tools, key)
    if found is None:
        return None
    (standing,) = await tools.store.standing(key)
    place, released = standing.place, RELEASED in claim.reasons
    if place and place.ready:
        try:
            return await set_channel(tools, found, key, place, released=released, standing=standing)
        except Missing as missing:
            await _gone(tools, key, place, missing)
            return None
    await provision(tools, found, split(key)[1])
    return None


async def ruled(tools: Tools, key: str) -> Room | None:
    """Return the room of the rules behind a key, with its dates; None where they have none such."""
    name, part = split(key)
    found = tools.rules.room(name)
    apart = found and (found.divided if part else bool(found.cohort))
    if found is None or bool(apart) != (part is not None):
        log.warning("room.unruled", room=key, why="the rules have no such room; it is left alone")
        return None
    return await with_dates(tools, found)


async def with_dates(tools: Tools, room: Room) -> Room:
    """Return a room with the dates that its calendar says, where it has one."""
    if room.calendar is None:
        return room
    dated = await tools.calendars.occurrences(room.key, room.calendar)
    return replace(room, schedule=replace(room.schedule, dated=dated))
