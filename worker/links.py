"""Links: the seat that its member takes, where Whop lets no account give it.

The link is the `purchase_url` of the cohort's hidden free plan. It is written into the support chat
between the buyer and the team; where the key may not, the seller hands it over (`usher seat
waiting`).
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from worker.memory.members import Member
from worker.memory.trail import Step
from worker.policy import ways
from worker.policy.access import Grant, Tell
from worker.policy.rooms import instance, spoken, title
from worker.policy.ways import NAMED, Refused, Way
from worker.tools import Tools
from worker.whop.errors import Forbidden, NotAvailable, Rejected, Unavailable

SLACK: Final = timedelta(minutes=5)
"""How far Whop's clock may be behind ours, where it says when a message was written."""

log = structlog.get_logger()


async def link_of(tools: Tools, grant: Grant) -> str:
    """Return the link of a cohort's own free plan.

    Raises:
        Unavailable: Whop shows none just now.
    """
    plans = await tools.whop.plans(grant.product)
    link = next((plan.link for plan in plans if plan.id == grant.plan and plan.link), None)
    if link is None:
        raise Unavailable("GET /variants", f"{grant.plan} is not shown with a purchase_url")
    return link


async def refused(tools: Tools, way: Way, refusal: Rejected) -> None:
    """Remember that Whop refuses the account a way, and say so once."""
    before, now = (await tools.store.refusals()).get(way), tools.clock()
    since = before.since if before else now
    if await tools.store.refused(way, Refused(since, now, str(refusal))):
        log.warning(
            "grant_way.refused",
            way=way,
            name=NAMED[way],
            why=str(refusal),
            next="another way is taken; it is asked again after a day, or by `usher seat probe`",
        )


async def tell(tools: Tools, user: str, known: Member, wish: Tell) -> Step:
    """Give a member their link, or have it on the seller's list; with `again`, remind them.

    Raises:
        Unavailable: Whop does not answer; it is told at the next try.
    """
    room, grant = wish.room, known.grants[wish.room.key]
    key, now = instance(room, grant.cohort), tools.clock()
    text = ways.message(
        room,
        name=title(room, grant.cohort),
        cohort=spoken(grant.cohort),
        link=grant.link or "",
        again=wish.again,
    )
    since = grant.told if wish.again and grant.told else grant.since
    written = await _write(tools, user, text, since, f"{key}/{user}/{int(since.timestamp())}")
    known.grants[room.key] = replace(
        grant,
        told=grant.told or now,
        in_chat=written or grant.in_chat,
        reminded=now if wish.again else None,
    )
    await tools.store.offered(user, known, key)
    if written:
        what = "link.reminded" if wish.again else "link.sent"
        log.info(what, room=key)
        return Step(now, what, "in their support chat", key)
    what = "link.unused" if wish.again else "link.listed"
    log.warning(what, room=key, next="hand it to them: `usher seat waiting` shows it")
    return Step(now, what, "on the list of `usher seat waiting`", key)


async def _write(tools: Tools, user: str, text: str, since: datetime, about: str) -> bool:
    """Write to a member in their support chat, once; False where the key may not."""
    if ways.stands(await tools.store.refusals(), Way.CHAT, tools.clock()):
        return False
    try:
        key = f"usher/{tools.rules.account}/{about}"
        chat = await tools.whop.support_chat(user, key=f"{key}/chat")
        for message in await tools.whop.messages(chat):
            written_at = message.created_at or tools.clock()
            if message.content == text and written_at >= since - SLACK:
                return True
        await tools.whop.write_to_customer(chat, text, key=f"{key}/link")
    except Rejected as refusal:
        not_available = isinstance(refusal, Forbidden | NotAvailable)
        if ways.is_for_good(refusal.status, str(refusal), not_available=not_available):
            await refused(tools, Way.CHAT, refusal)
        else:  # it is about this one buyer
            log.warning("link.untold", why=str(refusal), next="see `usher seat waiting`")
        return False
    return True
