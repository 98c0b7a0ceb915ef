"""Opening up: which rooms a worker has looked at when it starts: those that may not be in order.

What is remembered of a room is compared with the rules and the time, and Whop's lists, a hundred
rows a call, with what is remembered. A room that both show in order costs no call of its own, so
that a start takes no buyer's turn. Channels are looked at each minute as it is
(`worker.channels.watch`).
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from worker.memory.channels import Standing
from worker.memory.places import Place
from worker.policy.phases import Phase
from worker.policy.rooms import Room, split
from worker.policy.schedule import phase_at
from worker.proof.recall import recall
from worker.provision import ARCHIVED, fingerprint, name_of
from worker.reasons import START
from worker.rooms import with_dates
from worker.subjects import milliseconds
from worker.tools import Tools
from worker.whop.client import Whop
from worker.whop.errors import Unavailable, WhopError
from worker.whop.quota import DEFAULT, RESERVED, USED
from worker.whop.transport import PAGE

BATCH: Final = 100
"""Rooms that are read from Redis and judged in one go: a buyer's job waits no longer."""

AT_ONCE: Final = 50
"""Rooms that are due at once; the others follow as fast as the background's part of the quota."""

SPREAD: Final = timedelta(seconds=DEFAULT[1] / (DEFAULT[0] * USED * (1 - RESERVED)))
CALLS_TO_MAKE: Final = 3
"""Calls of one operation that the making of a room takes; a look at one that stands takes one."""

BY_PRODUCT: Final = 10
"""Calls that a start spends at the most to see which products open which chats."""

FEW: Final = 10
"""So many chats may be gone before a list that leaves out most of them is not believed."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Stand:
    """A room that its memory shows in order."""

    place: Place
    adopted: bool
    archived: bool
    products: tuple[str, ...]


async def open_up(tools: Tools) -> None:
    """Have every room looked at that may not be as the rules and the time want it.

    What failed for good is tried again: a person restarts a worker who has mended something.

    Raises:
        Unavailable, Rejected: Whop does not show its chats; what is remembered was looked at.
    """
    tools, now = tools.in_background(), tools.clock()
    await _have_tried(tools, list(await tools.subjects.deaths()), "revived", now, SPREAD)
    standing, to_make, differ = await _by_memory(tools, now)
    await _have_tried(tools, differ, START, now, SPREAD)
    await _have_tried(tools, to_make, START, now, SPREAD * CALLS_TO_MAKE)
    unlike = await _by_lists(tools.whop, standing)
    await _have_tried(tools, [f"room:{key}" for key in unlike], START, tools.clock(), SPREAD)


async def look_back(tools: Tools) -> None:
    """Learn anew what is ours, with all rooms, where somebody emptied Redis under a worker."""
    if await tools.store.recalled():
        return
    try:
        await recall(tools)
        await open_up(tools)
    except WhopError as error:
        log.warning("mirror.unknown", why=str(error), next="it is asked again")


async def _have_tried(
    tools: Tools, subjects: Sequence[str], why: str, now: datetime, spread: timedelta
) -> None:
    for n, subject in enumerate(subjects):
        at = now + max(0, n - AT_ONCE) * spread
        await tools.inbox.mark(subject, why, milliseconds(at))


# --- by what is remembered


async def _by_memory(tools: Tools, now: datetime) -> tuple[dict[str, _Stand], list[str], list[str]]:
    """Return the rooms that their memory shows in order; those to make; those that may differ."""
    ahead = [r.key for r in tools.rules.rooms if not r.cohort and r.provision == "ahead"]
    keys = sorted({*ahead, *await tools.store.instances()})
    dated = {one.key: await with_dates(tools, one) for one in tools.rules.rooms}
    marks = {one.key: fingerprint(one) for one in tools.rules.rooms}
    stand: dict[str, _Stand] = {}
    to_make: list[str] = []
    differ: list[str] = []
    for n in range(0, len(keys), BATCH):
        some = keys[n : n + BATCH]
        for key, known in zip(some, await tools.store.standing(*some), strict=True):
            name, part = split(key)
            room = dated.get(name)
            if room is None or not (known.place and known.place.ready):
                to_make.append(f"room:{key}")
            elif one := _in_order(room, part, known, marks[name], now):
                stand[key] = one
            else:
                differ.append(f"room:{key}")
        await asyncio.sleep(0)
    return stand, to_make, differ


def _in_order(
    room: Room, part: str | None, known: Standing, mark: str, now: datetime
) -> _Stand | None:
    """Return a room that is as the rules and the time want it, for all that is remembered."""
    place, kept = known.place, known.kept
    divided = room.divided if part else bool(room.cohort)
    if not (place and kept) or divided != (part is not None):
        return None
    archived = phase_at(room.schedule_of(part, place.occurrence), now) is Phase.ARCHIVED
    name = name_of(room, part, place) + (ARCHIVED if archived else "")
    as_ruled = place.rules == mark and place.name == name and place.archived == archived
    greeted = place.welcomed or not room.welcome
    counted = place.counted or not room.seats
    if not (as_ruled and greeted and counted and kept.id == place.channel):
        return None
    products = (place.product,) if place.product else room.products
    return _Stand(place, bool(room.experience), archived, products)


# --- by what Whop's lists show


async def _by_lists(whop: Whop, stand: Mapping[str, _Stand]) -> list[str]:
    """Return the rooms whose chat Whop shows otherwise than it is remembered, or not at all."""
    if not stand:
        return []
    names = {chat.id: chat.name for chat in await whop.chats()}
    missing = {one.place.experience for one in stand.values()} - names.keys()
    if missing:  # a list may leave rows out
        names |= {chat.id: chat.name for chat in await whop.chats()}
        missing -= names.keys()
    if len(missing) > FEW and 2 * len(missing) > len(stand):
        why = f"a list that leaves out {len(missing)} of {len(stand)} chats that are known"
        raise Unavailable("GET /experiences", why)
    unlike = {
        key
        for key, one in stand.items()
        if one.place.experience in missing
        or (not one.adopted and names[one.place.experience or ""].strip() != one.place.name)
    }
    return sorted(unlike | await _misattached(whop, stand))


async def _misattached(whop: Whop, stand: Mapping[str, _Stand]) -> set[str]:
    """Return the rooms that are not attached as they should be, where that costs few calls.

    With many rooms or products it is left to `usher verify`.
    """
    on: dict[str, list[str]] = {}
    for key, one in stand.items():
        for product in one.products:
            on.setdefault(product, []).append(key)
    if sum(math.ceil(len(keys) / PAGE) for keys in on.values()) > BY_PRODUCT:
        return set()
    wrong: set[str] = set()
    for product, keys in on.items():
        opened = {chat.id for chat in await whop.chats(product=product)}
        wrong |= {
            key for key in keys if (stand[key].place.experience in opened) == stand[key].archived
        }
    return wrong
