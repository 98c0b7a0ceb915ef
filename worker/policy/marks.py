"""Marks: by what is written on a membership on Whop itself, Usher's own grants are known again.

What is so marked is Usher's, whatever Redis knows of it. What is not may be a person's.
"""

from collections.abc import Mapping
from typing import Any, Final

ACCOUNT: Final = "usher_account"
ROOM: Final = "usher_room"
COHORT: Final = "usher_cohort"


def mark(account: str, room: str, cohort: str) -> dict[str, str]:
    """Return the metadata of a grant of ours."""
    return {ACCOUNT: account, ROOM: room, COHORT: cohort}


def is_marked(
    metadata: Mapping[str, Any], account: str, rooms: tuple[str, ...], cohort: str
) -> bool:
    """Say whether a membership bears the mark of a grant in a room's cohort, by one of its keys."""
    return any(mark(account, room, cohort).items() <= metadata.items() for room in rooms)
