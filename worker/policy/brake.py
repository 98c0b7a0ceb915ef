"""The brake on taking: whether one more seat may be ended that nothing explains. Pure.

A take is explained by a delivery or by a date: a cancellation, a refund, the end of a grace or of a
paid period. What nothing explains may be a lie that nobody has thought of, so it goes only where a
second look agrees, and never many at once without a person's word.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

MANY: Final = 5
"""So many unexplained takes of a room in an hour need nobody's word."""

PART: Final = 20
"""Nor does a twentieth of the room's members, where that is more."""

WINDOW: Final = timedelta(hours=1)
"""The time in which takes are counted together."""

SECOND_LOOK: Final = timedelta(minutes=10)
"""How long after the first look that would take something the second one must agree."""


class Word(StrEnum):
    """What a person said of a take that the brake held."""

    RELEASED = "released"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a take may go, when to look again where only time is missing, and why not."""

    go: bool
    look_again: datetime | None = None
    why: str = ""
    brakes: bool = False


GO: Final = Verdict(go=True)


def too_many(takes: int, members: int) -> bool:
    """Say whether so many takes of a room's members within the window are for a person to judge."""
    return takes > MANY and takes * PART > members


def judge(
    *,
    takes: int,
    members: int,
    first: datetime,
    now: datetime,
    word: Word | None,
    engaged: bool,
    agreed: bool,
) -> Verdict:
    """Judge one unexplained take.

    Args:
        takes: unexplained takes of the room in the window, done or wanted, with this one.
        members: how many are in the room by a grant.
        first: when a look first wanted this take.
        now: the time.
        word: what a person said of it.
        engaged: whether the room's brake is on.
        agreed: whether a second look has agreed already, as a verification's has.
    """
    if word is Word.RELEASED:
        return GO
    if word is Word.REFUSED:
        return Verdict(go=False, why="a person refused to have it taken")
    if engaged or too_many(takes, members):
        why = "the brake is on: many at once, and nothing explains each; a person decides"
        return Verdict(go=False, why=why, brakes=True)
    if not agreed and now - first < SECOND_LOOK:
        at = first + SECOND_LOOK
        return Verdict(go=False, look_again=at, why="nothing explains it; a second look must agree")
    return GO
