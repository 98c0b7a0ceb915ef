"""Why a subject is due, where it matters to the work: words that one part leaves for another."""

from typing import Final

START: Final = "start"
"""Why a room is due that may not be as a worker's rules want it, or as it is remembered."""

VERIFY: Final = "verify"
"""Why a subject is due that was found not to be as it should."""

FIRST_PURCHASE: Final = "first_purchase"
"""Why a room is due that waited for its first buyer."""

RELEASED: Final = "released"
"""Why a channel is due whose holds, and edits by hand, a person ended."""

TRANSFERRED: Final = "transferred"
"""Why a member is due whose membership went to another user, or came from one."""
