"""The stock of a plan that holds a room's seats: set on Whop, and looked at until it is understood.

What it is set to, and what Whop's stock means, is `worker.policy.stock`'s to say.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import structlog

from worker.memory.trail import Step
from worker.policy import stock
from worker.policy.access import ENTITLING
from worker.policy.rooms import Room
from worker.policy.stock import SETTLED, Sales, Stock
from worker.sight import MEMBERS
from worker.tools import Tools
from worker.whop.errors import Blind, Rejected
from worker.whop.types import Membership

ASKED: Final = 3
"""Of so many buyers the payments are asked for, at the most, to know that one bought the plan."""

log = structlog.get_logger()


async def hold_seats(tools: Tools, room: Room, key: str, *, found: bool) -> bool:
    """Have Whop hold a room's seats by the stock of its plan; says whether it was set.

    `found` says that the room was there before Usher knew of it: what Whop holds then stands.
    """
    if not (room.seats and room.plan):
        return False
    before = (await tools.store.stocks([room.key])).get(room.key)
    if not stock.is_due(before, room.seats, tools.clock()):
        return False
    try:
        await tools.sight.require(MEMBERS)
    except Blind as error:  # who has bought cannot be seen: then more might be sold than is left
        await _refused(tools, room, key, before, str(error))
        return False
    sales = await _count(tools, room, before)
    if before is None and found and sales.shown is not None:
        await tools.store.save_stock(room.key, Stock(room.seats))
        return True
    return await _set(tools, room, key, before, sales)


async def _set(tools: Tools, room: Room, key: str, before: Stock | None, sales: Sales) -> bool:
    now, seats, plan = tools.clock(), room.seats or 0, room.plan or ""
    wanted = stock.step(before, seats, sales, now)
    if wanted.value is not None:
        try:
            await tools.whop.set_stock(plan, wanted.value)
        except Rejected as error:  # the room opens all the same, and the sold are counted
            await _refused(tools, room, key, before, str(error))
            return False
    held = stock.after(before, seats, sales, wanted, tools.clock())
    await tools.store.save_stock(room.key, held)
    if held.unclear is not None and held.unclear != (before and before.unclear):
        log.warning(
            "room.stock_unclear",
            room=room.key,
            plan=plan,
            stock=held.value,
            next=f"if your checkout says that it is sold out, set the plan's stock to "
            f"{held.unclear} on Whop by hand, once: then Whop counts all that is ever sold",
        )
    return wanted.value is not None


async def _refused(tools: Tools, room: Room, key: str, before: Stock | None, why: str) -> None:
    now = tools.clock()
    held = stock.refused(before, room.seats or 0, why, now)
    await tools.store.save_stock(room.key, held)
    again = f"{held.due:%F %H:%M} UTC" if held.due else "a restart"
    log.warning("room.stock_refused", room=room.key, plan=room.plan, why=why, next=again)
    if held.refused == 1:
        step = Step(now, "room.stock_refused", why, key, room.plan)
        await tools.store.trail(f"room:{key}", [step])


async def _count(tools: Tools, room: Room, before: Stock | None) -> Sales:
    """Count what is sold, by Whop's list and by what deliveries told, and read the plan's stock."""
    shown = await _shown(tools, room)
    rows = [
        one
        async for one in tools.whop.memberships_of(room.products)
        if one.user and one.status in ENTITLING
    ]
    for one in rows:
        await tools.store.sold(room.key, one.user or "", one.created_at)
    sold = len((await tools.store.buyers([room.key]))[room.key])
    mine = [one for one in rows if one.plan == room.plan]
    sales = Sales(sold, len(mine), shown)
    if before is None or before.at is None:
        return sales
    since, old = before.at, tools.clock() - SETTLED
    new = [one for one in mine if one.created_at and one.created_at > since]
    settled = [one for one in new if one.created_at and one.created_at <= old]
    return replace(
        sales,
        bought=await _paid(tools, settled),
        young=len(settled) < len(new),
        missed=max(0, len(mine) - len(new) - before.on_plan),
    )


async def _shown(tools: Tools, room: Room) -> int | None:
    plans = [one for product in room.products for one in await tools.whop.plans(product)]
    return next((one.stock for one in plans if one.id == room.plan), None)


async def _paid(tools: Tools, rows: Sequence[Membership]) -> bool:
    """Say whether one of these was bought at the checkout: what is given away may leave the stock
    as it is.
    """
    for one in rows[:ASKED]:
        async for payment in tools.whop.payments(user=one.user):
            if payment.membership == one.id:
                return True
    return False
