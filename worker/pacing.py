"""A busy chat's pace: the law is asked at each look, and a room that gets slower is told."""

from datetime import datetime

import structlog

from worker.announce import write
from worker.memory.channels import Kept
from worker.policy import pace
from worker.policy.messages import Due
from worker.policy.pace import Pace, State
from worker.policy.rooms import Room
from worker.policy.settings import Settings
from worker.subjects import milliseconds
from worker.tools import Tools

log = structlog.get_logger()


async def ask(
    tools: Tools, room: Room, kept: Kept, now: datetime, *, archived: bool
) -> tuple[State | None, Settings, datetime | None]:
    """Ask the law what a busy chat's pace should be now, and when to ask it again."""
    if room.pace is None or archived:
        if kept.armed:
            await tools.chatter.disarm(kept.id)
            kept.armed = False
        return None, Settings(), None
    before, reading = await tools.chatter.state(kept.id), await tools.chatter.reading(kept.id, now)
    state, look = pace.step(room.pace, before, reading, now)
    return state, pace.settings(room.pace, state), look


async def standing(tools: Tools, room: Room, kept: Kept) -> Settings:
    """Return what a busy chat's pace is, as it was last asked for."""
    if room.pace is None:
        return Settings()
    return pace.settings(room.pace, await tools.chatter.state(kept.id))


async def keep(
    tools: Tools,
    key: str,
    kept: Kept,
    law: Pace,
    *,
    state: State,
    now: datetime,
    aimed: Settings | None,
    want: Settings,
) -> None:
    """Remember the pace that the channel has by now, and tell the room where it got slower.

    Where something stronger decides on the cooldown, so that what was `aimed` at before is what is
    wanted now, the room is told nothing.
    """
    before = await tools.chatter.state(kept.id)
    await tools.chatter.save_state(kept.id, state)
    await tools.chatter.arm(kept.id, f"channel:{key}", law, state, now)
    kept.armed = True
    if state.level == before.level:
        return
    seconds = want.user_posts_cooldown_seconds
    log.info("pace.changed", room=key, level=state.level, seconds=seconds)
    shown = aimed is None or aimed.user_posts_cooldown_seconds != seconds
    if law.say and state.level and shown:
        text = law.say.replace("{seconds}", str(seconds))
        due = Due(f"pace@{milliseconds(now)}", text, pin=False, at=now, until=now)
        await write(tools, key, kept, due, None)
        await tools.store.forget_posted(key, due.key)  # no other look asks for it
