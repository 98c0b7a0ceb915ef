"""The worker's one look at a clock; the time is handed to everything else as `now` or `clock`."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - here and nowhere else
