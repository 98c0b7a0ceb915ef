"""Which entries of a calendar are a room's dates, and what a new reading of a feed means.

A feed is read over and over. What it says is believed, but for one case: dates that all go at once
are more often a slip (a calendar emptied, made private, exported wrongly) than a wish, and would
close the rooms. Such a reading is held until the seller accepts it.
"""

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from worker.policy.occurrences import Occurrence

REMINDER: Final = timedelta(hours=1)
"""How often a warning is repeated while what it warns of goes on."""

MANY: Final = 2
"""Upcoming dates that do not vanish all at once by a seller's wish; a single one may well."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a room's dates come from: the entries of a calendar that have a word.

    `word` is one of an entry's CATEGORIES, or a whole word (or phrase) of its SUMMARY, in capitals
    or not. Just one of `url` (http or https; often secret, so it is never shown) and `file` (a
    path) is given.
    """

    word: str
    url: str | None = None
    file: str | None = None

    @property
    def feed(self) -> str:
        """A name of the calendar for Redis and logs, which does not tell its address."""
        place = f"url {self.url}" if self.url else f"file {self.file}"
        return hashlib.sha256(place.encode()).hexdigest()[:12]

    @property
    def shown(self) -> str:
        """The calendar as it may be shown to people: a path, or a host."""
        if self.url is None:
            return str(self.file)
        try:
            host = urlsplit(self.url).hostname
        except ValueError:
            host = None
        return f"the calendar at {host or 'its address'}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a feed said: how many entries it has in all, and each room's dates within reach."""

    entries: int
    rooms: Mapping[str, tuple[Occurrence, ...]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a reading: the dates that hold now, and those that wait for the seller."""

    rooms: dict[str, tuple[Occurrence, ...]]
    held: dict[str, tuple[Occurrence, ...]]


def belongs(word: str, categories: Iterable[str], summary: str) -> bool:
    """Say whether an entry with these CATEGORIES and this SUMMARY is a date of the room."""
    wanted = _folded(word)
    if any(_folded(category) == wanted for category in categories):
        return True
    return bool(re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", _folded(summary)))


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def upcoming(dates: Iterable[Occurrence], now: datetime) -> list[Occurrence]:
    """Return the dates that are not over yet, in order."""
    return sorted((one for one in dates if one.ends > now), key=lambda one: (one.starts, one.id))


def suspicious(
    before: tuple[Occurrence, ...], after: tuple[Occurrence, ...], entries: int, now: datetime
) -> bool:
    """Say whether a room lost its dates in a way that the seller hardly meant.

    It had two or more ahead and has none; or it had one, and the calendar has no `entries` left.
    """
    had = len(upcoming(before, now))
    return not upcoming(after, now) and (had >= MANY or (had > 0 and entries == 0))


def judge(
    before: Mapping[str, tuple[Occurrence, ...]],
    reading: Reading,
    now: datetime,
    held: Collection[str] = (),
) -> Verdict:
    """Decide for each room whether a reading holds, or waits while the plan of `before` is kept."""
    waits = {
        room: dates
        for room, dates in reading.rooms.items()
        if suspicious(before.get(room, ()), dates, reading.entries, now)
        or (room in held and upcoming(before.get(room, ()), now) and not upcoming(dates, now))
    }
    over = {
        room: before[room]
        for room, dates in reading.rooms.items()
        if not dates and before.get(room) and not upcoming(before[room], now)
    }
    kept = {room: before[room] for room in waits} | over
    return Verdict({**reading.rooms, **kept}, waits)


def changed(
    before: Iterable[Occurrence], after: Iterable[Occurrence], since: datetime, until: datetime
) -> bool:
    """Say whether dates were added, moved or taken away in [since, until], which both readings saw.

    The reach of a reading moves on with the days: what only enters or leaves it is no change.
    """
    seen = [{one for one in dates if one.ends >= since and one.starts <= until}
            for dates in (before, after)]  # fmt: skip
    return seen[0] != seen[1]


def remind(told: datetime | None, now: datetime) -> bool:
    """Say whether it is time for a warning that was last given at `told`, if ever."""
    return told is None or now - told >= REMINDER
