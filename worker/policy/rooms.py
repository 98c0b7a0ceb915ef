"""What the seller says of a room, and the cohort that a purchase belongs to."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from worker.policy.schedule import Schedule

OnMoneyBack = Literal["revoke", "keep"] | None
"""What a refund or a dispute does to a room; None: nothing, the membership's status decides."""


@dataclass(frozen=True, slots=True)
class Cohorts:
    """How a cohort room is divided: a cohort for each month or week, or for the next N buyers."""

    by: Literal["month", "week", "seats"]
    seats: int = 0


@dataclass(frozen=True)
class Room:
    """A room as the rules file describes it. `key` is its name for commands and logs.

    Without `cohort` its Chat experience is attached straight to `products`, and the purchase
    itself gives access. With it, each cohort has a hidden product of its own, and a purchase of
    one of `products` is answered with a grant on it. `grace`, `on_refund` and `on_dispute` speak
    of grants and so of cohort rooms only.
    """

    key: str
    name: str
    products: tuple[str, ...]
    schedule: Schedule
    cohort: Cohorts | None = None
    grant: Literal["create", "invite"] = "create"
    grace: timedelta = timedelta(days=3)
    on_refund: OnMoneyBack = None
    on_dispute: OnMoneyBack = None
    provision: Literal["ahead", "on_purchase"] = "ahead"
    experience: str | None = None
    welcome: str | None = None


def instance(room: Room, cohort: str | None) -> str:
    """Return the key of one room as it exists on Whop: `lounge`, or `course/2026-12`."""
    return room.key if cohort is None else f"{room.key}/{cohort}"


def split(key: str) -> tuple[str, str | None]:
    """Return the room and the cohort of an instance's key."""
    room, slash, cohort = key.partition("/")
    return room, cohort if slash else None


def calendar_cohort(cohorts: Cohorts, bought: datetime, zone: ZoneInfo) -> str | None:
    """Return the cohort of a purchase by its date in the room's zone; None where seats decide."""
    day = bought.astimezone(zone)
    if cohorts.by == "month":
        return f"{day:%Y-%m}"
    if cohorts.by == "week":
        return f"{day:%G-W%V}"
    return None


def title(room: Room, cohort: str | None) -> str:
    """Return the room's name on Whop, with `{cohort}` written out for people."""
    return room.name.replace("{cohort}", _spoken(cohort)) if cohort else room.name


def _spoken(cohort: str) -> str:
    if "-W" in cohort:
        year, _, week = cohort.partition("-W")
        return f"week {int(week)} of {year}"
    if "-" in cohort:
        return f"{datetime.strptime(cohort, '%Y-%m'):%B %Y}"  # noqa: DTZ007 - a month has no zone
    return cohort
