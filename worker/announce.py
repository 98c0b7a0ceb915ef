"""Messages at the phases of an event room, each exactly once, whatever breaks in between."""

from datetime import datetime, timedelta
from typing import Final

import structlog

from worker.memory.channels import Kept, Posted
from worker.memory.trail import Step
from worker.policy.messages import Due, messages_at
from worker.policy.rooms import Room
from worker.policy.schedule import Schedule
from worker.tools import Tools
from worker.whop.errors import Missing, Rejected

log = structlog.get_logger()

SKEW: Final = timedelta(minutes=1)
"""How far Whop's clock may be behind ours, where we look for a message that we may have written."""


async def announce(
    tools: Tools, room: Room, key: str, kept: Kept, schedule: Schedule, *, first: bool = False
) -> None:
    """Write every message whose moment it is, and that does not stand in the room yet.

    At the first look at a channel nothing is known of what was written before, by a Usher whose
    memory was lost: then the room is looked through.
    A message that Whop refuses is reported and left out: no room stays shut for want of a text.

    Raises:
        Unavailable: wait and try again; nothing is written twice.
    """
    due = messages_at(schedule, room.messages, tools.clock())
    known = await tools.store.posted(key, [one.key for one in due]) if due else {}
    for one in due:
        before = known.get(one.key) or (Posted(one.at) if first else None)
        if before is None or not before.done:
            await write(tools, key, kept, one, before)


async def write(tools: Tools, key: str, kept: Kept, due: Due, before: Posted | None) -> None:
    """Write one message, and pin it, from wherever an earlier try broke off.

    That we set out is written down first; who finds that note looks in the room before writing.
    """
    posted = before or Posted(tools.clock())
    if before is None:
        await tools.store.save_posted(key, due.key, posted)
    try:
        id_ = posted.id or (before and await _found(tools, kept, due, posted.began))
        if not id_:
            idempotency = f"usher/{tools.rules.account}/{key}/message/{due.key}"
            made = await tools.whop.post_message(kept.id, due.text, key=idempotency)
            id_ = made.id
        posted = Posted(posted.began, id_)
        await tools.store.save_posted(key, due.key, posted)
    except Rejected as error:
        log.warning("message.refused", room=key, message=due.key, why=str(error))
        what, why = "message.refused", str(error)
    else:
        if due.pin:
            await _pin(tools, key, kept, id_)
        log.info("message.written", room=key, message=due.key, id=posted.id)
        what, why = "message.written", due.key
    await tools.store.save_posted(key, due.key, Posted(posted.began, posted.id, done=True))
    step = Step(tools.clock(), what, why, room=key, id=posted.id)
    await tools.store.trail(f"channel:{key}", [step])


async def _found(tools: Tools, kept: Kept, due: Due, began: datetime) -> str | None:
    """Look for a message that we may have written before we broke off."""
    async for message in tools.whop.messages_since(kept.id, began - SKEW):
        if message.content.strip() == due.text.strip():
            return message.id
    return None


async def _pin(tools: Tools, key: str, kept: Kept, id_: str) -> None:
    """Pin a message in the stead of the one that we pinned before."""
    try:
        await tools.whop.pin_message(id_, pinned=True)
    except Rejected as error:  # it stands in the room all the same
        log.warning("message.not_pinned", room=key, id=id_, why=str(error))
        return
    if kept.pinned and kept.pinned != id_:
        try:
            await tools.whop.pin_message(kept.pinned, pinned=False)
        except Missing:
            log.info("message.gone", room=key, id=kept.pinned)
    kept.pinned = id_
    await tools.store.save_kept(key, kept)
