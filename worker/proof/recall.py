"""Recall: learn from Whop what is ours there, where Redis knows nothing of it.

Redis may be new, or emptied. Before anybody is given anything, the hidden products of our cohorts,
the grants on them, and so the seats, are read back: nobody gets a second grant, and no cohort one
seat too many. Doing it again changes nothing.
"""

import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from worker.doubts import note_payment
from worker.memory.members import Member
from worker.memory.places import Place
from worker.policy.access import GIVING, PAST_DUE, Hidden, decide
from worker.policy.differences import found_grant
from worker.policy.news import Seen
from worker.policy.rooms import Room, split, title
from worker.proof.census import Census, cohorts, count
from worker.provision import own_plan
from worker.rules import Rules
from worker.sight import MEMBERS
from worker.subjects import milliseconds
from worker.tools import Tools
from worker.whop.types import Membership

log = structlog.get_logger()

RECALLED: Final = "recalled"
"""Why a subject is due that was read back from Whop."""

BATCH: Final = 500
SLACK: Final = timedelta(minutes=10)
"""How far Whop's clock and ours may be apart, and an answer late."""


async def notice(tools: Tools) -> bool:
    """Notice, while at work, that Redis was put back to an older copy; then all is in doubt."""
    if not await tools.store.put_back():
        return False
    await _doubt_all(tools, "it knows fewer grants than it did")
    return True


async def compare(tools: Tools) -> None:
    """Notice, at a worker's start, that Whop shows grants of which Redis knows nothing.

    Redis may have been put back to an older copy while nobody was at work. Looked at is what was
    made on Whop since the last grant that is known.

    Raises:
        Unavailable, Rejected: Whop did not tell.
    """
    since = await tools.store.granted_at()
    if since is None or await _unknown(tools):
        return
    sold = {product for room in tools.rules.rooms for product in room.products}
    made: dict[str, list[Membership]] = {}
    async for one in tools.whop.memberships_since(since - SLACK):
        if one.user and one.product not in sold and one.status in GIVING:
            made.setdefault(one.user, []).append(one)
    known = await tools.store.members(list(made))
    strange = {
        one.product or ""
        for user, rows in made.items()
        for one in rows
        if one.id not in (known[user].seen if user in known else ())
    }
    if strange and await _ours(tools, strange):
        await _doubt_all(tools, "Whop shows grants that it does not know")


async def _ours(tools: Tools, products: set[str]) -> bool:
    """Say whether one of these products was made for a cohort of ours."""
    if await tools.store.hidden(sorted(products)):
        return True
    return any(product in products for product, _ in await cohorts(tools, tools.rules.rooms))


async def _doubt_all(tools: Tools, why: str) -> None:
    await tools.store.doubt([room.key for room in tools.rules.rooms])
    log.warning(
        "redis.put_back",
        why=f"Redis is an older copy of itself: {why}",
        next="what is on Whop is read back before anybody is given a seat",
    )


async def recall(tools: Tools) -> bool:
    """Read back the rooms of which Redis does not say that it knows them; False where it knows all.

    One process does it at a time, and the others wait for it.

    Raises:
        Unavailable, Rejected: Whop did not tell all of it; the next call begins anew.
    """
    if not await _unknown(tools):
        return False
    tools = tools.in_background()
    async with tools.leases.holding("recalling"):
        rooms = await _unknown(tools)
        if rooms:
            await _recall(tools, rooms)
    return True


async def _unknown(tools: Tools) -> list[Room]:
    known = await tools.store.recalled()
    return [room for room in tools.rules.rooms if room.key not in known]


async def _recall(tools: Tools, rooms: Sequence[Room]) -> None:
    divided = [room for room in rooms if room.cohort]
    if divided:
        await tools.sight.require(MEMBERS)
    hidden = await hidden_products(tools, divided)
    tools.places.clear()
    members = 0
    if hidden:
        census = await count(tools, divided, hidden)
        members = await _members(tools, divided, hidden, census)
        for key in {one.room for one in hidden.values()}:
            numbers = [int(one.cohort) for one in hidden.values() if _numbered(one, key)]
            if numbers:
                await tools.store.fill(key, str(max(numbers)))
    for room in divided:
        await tools.store.recount(room.key)
    await tools.store.save_recalled([room.key for room in rooms])
    ahead = [r.key for r in rooms if not r.cohort and r.provision == "ahead"]
    for key in (*ahead, *(f"{one.room}/{one.cohort}" for one in hidden.values())):
        await tools.inbox.mark(f"room:{key}", RECALLED, milliseconds(tools.clock()))
    if hidden:
        log.warning("mirror.recalled", cohorts=len(hidden), members=members)


def _numbered(one: Hidden, room: str) -> bool:
    return one.room == room and one.cohort.isdigit()


async def hidden_products(tools: Tools, rooms: Sequence[Room]) -> dict[str, Hidden]:
    """Find the hidden products of some rooms, and remember each with its plan as a place."""
    found: dict[str, Hidden] = {}
    keys: set[str] = set()
    for product, key in await cohorts(tools, rooms):
        room = tools.rules.room(split(key)[0])
        cohort = split(key)[1]
        if key in keys or room is None or cohort is None:
            continue
        keys.add(key)
        async with tools.leases.holding(f"making:{key}"):
            place = await tools.store.place(key) or Place(
                name=title(room, cohort), salt=int(tools.clock().timestamp())
            )
            if place.product not in (None, product):
                continue
            place.product = product
            if place.plan is None:
                place.plan = own_plan(await tools.whop.plans(product))
            await tools.store.save_place(key, place)
        found[product] = Hidden(room.key, cohort, product, place.plan)
    return found


async def _members(
    tools: Tools, rooms: Sequence[Room], hidden: Mapping[str, Hidden], census: Census
) -> int:
    """Remember the grants that are on Whop, with their seats; returns how many members have one."""
    now, total = tools.clock(), 0
    team = await tools.store.team() or frozenset()
    users = iter(census.memberships)
    while batch := list(itertools.islice(users, BATCH)):
        lost = {}
        for user in batch:
            member = _member(tools.rules, hidden, census, user, now)
            if member.grants and user not in team:
                lost[user] = member
        known = await tools.store.members(list(lost))
        await tools.store.remember_members(lost)
        total += len(lost)
        for user, member in lost.items():
            decision = decide(rooms, census.memberships[user], member.facts(team=False), now)
            forgot = user in known and member.grants.keys() - known[user].grants.keys()
            at = now if decision.actions or forgot else decision.look_again
            if at:
                await tools.inbox.mark(f"member:{user}", RECALLED, milliseconds(at))
    return total


def _member(
    rules: Rules, hidden: Mapping[str, Hidden], census: Census, user: str, now: datetime
) -> Member:
    """Return what can be told of a member from Whop alone."""
    rows = census.memberships[user]
    member = Member(salt=int(now.timestamp()))  # Whop repeats its answers to keys of before
    for room in (room for room in rules.rooms if room.cohort):
        grant = found_grant(room, hidden, rows, rules.account)
        if grant:
            member.grants[room.key] = grant
    member.seen = {m.id: Seen.of(m) for m in rows}
    late = [m for m in rows if m.status == PAST_DUE]
    member.past_due = {m.id: m.period_end or now for m in late}
    for payment in census.payments_of(user):
        note_payment(member, payment)
    return member
