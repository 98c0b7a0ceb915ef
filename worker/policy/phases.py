"""The phases of an event room, and what each sets where the rules say nothing about it."""

from enum import StrEnum
from typing import Final

from worker.policy.settings import Settings, WhoCanPost, WhoCanReact


class Phase(StrEnum):
    """Where an event room stands. A room without occurrences is always open."""

    BEFORE = "before"
    OPEN = "open"
    LOCKED = "locked"
    ARCHIVED = "archived"


QUIET: Final = Settings(who_can_post=WhoCanPost.ADMINS)
SILENT: Final = Settings(who_can_post=WhoCanPost.ADMINS, who_can_react=WhoCanReact.NO_ONE)
PHASES: Final = {
    Phase.BEFORE: QUIET,
    Phase.OPEN: Settings(),
    Phase.LOCKED: QUIET,
    Phase.ARCHIVED: SILENT,
}
"""What a phase sets where the rules say nothing about it."""
