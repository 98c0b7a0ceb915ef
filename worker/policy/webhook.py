"""When Whop turns a webhook off that fails. Pure.

It does so after 72 hours of failing, if at least ten deliveries have failed by then, and sends its
seller a mail after 24 hours (Whop: Webhooks). What happens while it is off is never delivered.
"""

from datetime import datetime, timedelta
from typing import Final

ALARM: Final = timedelta(hours=24)
"""How long a webhook may fail before somebody is to be woken."""

PATIENCE: Final = timedelta(hours=72)
ENOUGH: Final = 10
"""Failed deliveries without which Whop turns no webhook off."""


def nears_its_end(failing_since: datetime | None, now: datetime) -> datetime | None:
    """Return when Whop turns a webhook off; None while it does not fail, or not for a day yet."""
    if failing_since is None or now - failing_since < ALARM:
        return None
    return failing_since + PATIENCE


def turned_off(end: datetime, failures: int, now: datetime) -> str:
    """Say in words when Whop turns a webhook off that nears its end."""
    if failures >= ENOUGH:
        return f"at {end:%F %H:%M} UTC"
    few = f"once {ENOUGH} deliveries have failed ({failures} have)"
    return few if now >= end else f"at {end:%F %H:%M} UTC at the earliest, {few}"
