"""A busy chat's pace: the law is asked at each look, and a room that gets slower is told."""

from dataclasses import dataclass, field
from datetime import datetime

import structlog

from worker.announce import write
from worker.chatter import Heard
from worker.memory.channels import Kept
from worker.policy import pace
from worker.policy.messages import Due
from worker.policy.pace import Pace, State
from worker.policy.rooms import Room
from worker.policy.settings import Settings
from worker.subjects import milliseconds
from worker.tools import Tools

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Asked:
    """What the law says of a busy chat now, and what was counted and known before.

    `state` is None where no law is asked; `slower` is what lies on the plan; `look` is when to ask
    again.
    """

    state: State | None = None
    slower: Settings = field(default_factory=Settings)
    look: datetime | None = None
    heard: Heard = field(default_factory=Heard)


async def ask(tools: Tools, room: Room, kept: Kept, now: datetime, *, archived: bool) -> Asked:
    """Ask the law what a busy chat's pace should be now, and when to ask it again."""
    if room.pace is None or archived:
        if kept.armed:
            await tools.chatter.disarm(kept.id)
            kept.armed = False
        return Asked()
    heard = await tools.chatter.heard(kept.id, now)
    state, look = pace.step(room.pace, heard.state, heard.reading, now)
    return Asked(state, pace.settings(room.pace, state), look, heard)


async def keep(
    tools: Tools,
    key: str,
    kept: Kept,
    law: Pace,
    *,
    asked: Asked,
    now: datetime,
    aimed: Settings | None,
    want: Settings,
) -> None:
    """Remember the pace that the channel has by now, and tell the room where it got slower.

    Where something stronger decides on the cooldown, so that what was `aimed` at before is what is
    wanted now, the room is told nothing.
    """
    before, state = asked.heard.state, asked.state or State()
    if state != before:
        await tools.chatter.save_state(kept.id, state)
    await tools.chatter.arm(kept.id, f"channel:{key}", law, state, now, standing=asked.heard.alarm)
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
