"""Taking: what was decided to be taken from a member goes only where it may.

A take that a delivery or a date explains goes at once. Any other waits for a second look, and where
there are many, for a person: that is `worker.brake`'s to say.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from worker.memory.members import Member
from worker.memory.trail import Step
from worker.observe import Observed
from worker.policy.access import Action, Remove, Take
from worker.policy.brake import Verdict
from worker.policy.evidence import explained
from worker.policy.refunds import Cancel
from worker.tools import Tools

log = structlog.get_logger()


@dataclass(slots=True)
class Look:
    """One look at a member; `agreed` says that it is a second look already.

    `look_again` is when the brake wants another look, and `steps` what it leaves in the history.
    """

    user: str
    known: Member
    observed: Observed
    agreed: bool = False
    look_again: datetime | None = None
    steps: list[Step] = field(default_factory=list)


Ends = Take | Remove | Cancel
"""What takes something from somebody."""


async def may_go(
    tools: Tools, look: Look, actions: Iterable[Action | Cancel]
) -> list[Action | Cancel]:
    """Return what may be done now of what was decided."""
    going: list[Action | Cancel] = []
    held: list[str] = []
    for action in actions:
        verdict = await _ask(tools, look, action) if isinstance(action, Ends) else None
        if verdict is None or verdict.go:
            going.append(action)
        else:
            held.append(action.room.key)
            _note(tools, look, action, verdict)
    await _tell(tools, look, {a.room.key for a in going if isinstance(a, Ends)}, held)
    look.known.braked = held
    return going


def _explained(tools: Tools, look: Look, take: Ends) -> bool:
    if isinstance(take, Cancel):
        return take.told
    return (isinstance(take, Take) or take.ours) and explained(
        take.room,
        look.observed.rows,
        look.known.facts(team=False),
        ended=look.observed.said,
        moved=look.observed.lost,
        now=tools.clock(),
    )


async def _ask(tools: Tools, look: Look, take: Ends) -> Verdict:
    room, reason = take.room, _explained(tools, look, take)
    return await tools.brake.may_take(
        room.key,
        look.user,
        why=take.why,
        explained=reason,
        members=0 if reason else await tools.store.count_members(room.key),
        agreed=look.agreed,
    )


def _note(tools: Tools, look: Look, action: Action | Cancel, verdict: Verdict) -> None:
    """Say once why a take waits, and look again where only time is missing."""
    if verdict.look_again:
        look.look_again = min(look.look_again or verdict.look_again, verdict.look_again)
    key, why = action.room.key, action.why if isinstance(action, Ends) else ""
    if key not in look.known.braked:
        log.warning("take.held", room=key, why=why, until=verdict.why)
        look.steps.append(Step(tools.clock(), "take.held", f"{why}; {verdict.why}", key))


async def _tell(tools: Tools, look: Look, taken: set[str], held: list[str]) -> None:
    """Have the brake forget what it held of this member and holds no more."""
    for key in look.known.braked:
        if key in taken:
            await tools.brake.settled(key, look.user)
        elif key not in held:
            await tools.brake.withdrawn(key, look.user)
