"""What the seller says of a room, and the cohort that a purchase belongs to."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo

from worker.policy.calendars import Source
from worker.policy.messages import Message
from worker.policy.occurrences import Occurrence
from worker.policy.pace import Pace
from worker.policy.schedule import Schedule

OnMoneyBack = Literal["revoke", "keep", "cancel"] | None
"""What a refund or a dispute does to a room; None: nothing, the membership's status decides. With
`cancel` it does, too: the membership itself is cancelled at Whop."""


REMIND: Final = timedelta(days=1)
"""After so long somebody is reminded of a link that they have not used."""

LEAD: Final = timedelta(days=7)
"""How long before an occurrence its own room is made, where the rules do not say."""


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
    one of `products` is answered with a grant on it. `grace` speaks of grants and so of cohort
    rooms only, and so do `on_refund` and `on_dispute` but for `cancel`. `strangers` says what
    becomes of who came by a link that was not theirs; None: they are removed where seats are given
    by links.

    An event room is one room for all its occurrences, or one for each; that is made `lead` before
    its occurrence. `seats` are what may be sold of it, and `plan` the plan whose stock holds them.

    `was` are the keys that it had before: on Whop, its cohorts' products bear them still.
    """

    key: str
    name: str
    products: tuple[str, ...]
    schedule: Schedule
    cohort: Cohorts | None = None
    grant: Literal["auto", "create", "invite", "link"] = "auto"
    link_message: str | None = None
    remind: timedelta = REMIND
    strangers: Literal["remove", "report"] | None = None
    grace: timedelta = timedelta(days=3)
    on_refund: OnMoneyBack = None
    on_dispute: OnMoneyBack = None
    provision: Literal["ahead", "on_purchase"] = "ahead"
    experience: str | None = None
    welcome: str | None = None
    messages: tuple[Message, ...] = ()
    one_room_per: Literal["series", "occurrence"] = "series"
    lead: timedelta | None = None
    seats: int | None = None
    plan: str | None = None
    manual_edits: Literal["respect", "revert"] = "respect"
    calendar: Source | None = None
    pace: Pace | None = None
    was: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The room's key, and those that it had before."""
        return (self.key, *self.was)

    @property
    def divided(self) -> bool:
        """Say whether it is several rooms on Whop: a room a cohort, or a room an occurrence."""
        return self.cohort is not None or self.one_room_per == "occurrence"

    def schedule_of(self, part: str | None, last: Occurrence | None = None) -> Schedule:
        """Return the schedule of one room as it exists on Whop.

        A room of an occurrence that is no longer planned is cancelled; `last` is what was planned.
        """
        if self.one_room_per == "series" or part is None:
            return self.schedule
        planned = self.schedule.find(part)
        one = planned or last
        return self.schedule.only(one, cancelled=planned is None) if one else self.schedule

    @property
    def waits(self) -> bool:
        """Say whether a first buyer brings a room into being that is not there yet."""
        if self.cohort:
            return False
        ahead = self.lead is not None or self.one_room_per == "occurrence"
        return ahead or self.provision == "on_purchase"

    def due_from(self, part: str | None, now: datetime) -> datetime | None:
        """Return from when on a room should exist that nobody has bought yet; None for never."""
        if self.provision == "on_purchase":
            return None
        if part is not None:
            return now if self.cohort or self.schedule.find(part) else None
        if self.lead is None:
            return now
        if self.schedule.between(now, now):
            return now
        opening = self.schedule.next_opening(now)
        return opening - self.lead if opening else None

    def bought_key(self, bought: datetime, now: datetime) -> str | None:
        """Return the key of the room that a ticket bought then calls for, if it is not over.

        With a room for each occurrence that is the first one that was not over when it was bought;
        those after it are made in their own time.
        """
        if self.one_room_per == "series":
            return self.key
        at = next(
            (one for one in self._coming(bought) if self.schedule.span(one)[1] > bought), None
        )
        return f"{self.key}/{at.id}" if at and self.schedule.span(at)[1] > now else None

    def _coming(self, t: datetime) -> list[Occurrence]:
        """Return the occurrences that are open at an instant, and the next one after it."""
        opening = self.schedule.next_opening(t)
        return self.schedule.between(t, opening or t)

    def to_make(self, now: datetime) -> tuple[list[Occurrence], datetime | None]:
        """Return the occurrences whose own rooms should exist now, and when the next one should."""
        lead = LEAD if self.lead is None else self.lead
        coming = self.schedule.next_opening(now + lead)
        return self.schedule.between(now, now + lead), coming - lead if coming else None


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
    return room.name.replace("{cohort}", spoken(cohort)) if cohort else room.name


def dated_title(room: Room, one: Occurrence) -> str:
    """Return the name of an occurrence's own room, with `{date}` written out in the room's zone."""
    local = one.starts.astimezone(room.schedule.zone)
    return room.name.replace("{date}", f"{local:%a %-d %b %Y, %H:%M}")


def spoken(cohort: str) -> str:
    """Write a cohort out for people: 12 as it is, 2026-12 as December 2026."""
    if "-W" in cohort:
        year, _, week = cohort.partition("-W")
        return f"week {int(week)} of {year}"
    if "-" in cohort:
        return f"{datetime.strptime(cohort, '%Y-%m'):%B %Y}"  # noqa: DTZ007 - a month has no zone
    return cohort
