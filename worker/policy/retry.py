"""How long to wait before a job that failed is tried again, and when it has failed for good."""

import random
from datetime import datetime, timedelta

FIRST = timedelta(seconds=1)
LONGEST = timedelta(hours=1)
GIVE_UP = timedelta(hours=30)
"""Longer than a day: what breaks at night is mended by day."""
MOST = 60
"""More tries than the pauses leave room for in that time: such a job ends its worker each time."""


def pause(tries: int, rng: random.Random) -> timedelta:
    """Return the pause after so many tries: doubling up to an hour, less up to a fifth."""
    longest: timedelta = min(FIRST * 2.0 ** min(tries - 1, 12), LONGEST)
    return longest * rng.uniform(0.8, 1.0)


def gives_up(first_try: datetime, now: datetime) -> bool:
    """Say whether a job that was first tried then, and failed again now, goes to the dead set."""
    return now - first_try >= GIVE_UP
