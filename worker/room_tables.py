"""The tables within a room's own: its settings, dates, calendar, messages, cohorts and pace."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from worker.combinations import (
    CALENDAR_CHECKS,
    COHORT_CHECKS,
    MESSAGE_CHECKS,
    OCCURRENCE_CHECKS,
    PACE_CHECKS,
    SETTINGS_CHECKS,
)
from worker.policy.calendars import Source
from worker.policy.messages import Message, When
from worker.policy.occurrences import Dates, Occurrences, dates
from worker.policy.pace import Pace
from worker.policy.rooms import Cohorts
from worker.policy.settings import NAMES, Settings
from worker.tables import Read, Tables, shown

T = TypeVar("T")

STAND_IN: Final[dict[str, Any]] = {"starts": datetime(2026, 1, 1), "lasts": timedelta(hours=1)}  # noqa: DTZ001 - it is local
"""Of a date that cannot be read, so that its recurrence is."""


@dataclass(frozen=True)
class _Nothing:
    """What a table of settings has besides them."""


class RoomTables(Tables):
    """Reads what is within a room's table; calendars' files are named from the rules' folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def settings(self, data: dict[str, Any], where: str) -> Settings:
        """Take the settings out of a table, leaving its other keys."""
        said = {name: data.pop(name) for name in NAMES if name in data}
        return self.read(Settings, said, where, SETTINGS_CHECKS).whole or Settings()

    def only_settings(self, data: Any, where: str) -> Settings:
        """Read a table that has nothing but settings."""
        if not isinstance(data, dict):
            self.wrong(where, f"expected a table of settings, got {shown(data)}")
            return Settings()
        settings = self.settings(data, where)
        self.read(_Nothing, data, where, others=NAMES)
        return settings

    def cohorts(self, data: dict[str, Any] | None, where: str) -> Cohorts | None:
        """Read `cohort`."""
        return None if data is None else self.read(Cohorts, data, where, COHORT_CHECKS).whole

    def occurrences(self, data: dict[str, Any], where: str, zone: ZoneInfo) -> Occurrences | None:
        """Read a line of `[[rooms.X.occurrences]]`, whose dates are those of a zone."""
        line = self.read(Occurrences, data, where, OCCURRENCE_CHECKS)
        if "repeats" in line.values:
            self._recurrence(line, where, zone)
        return line.whole

    def _recurrence(self, read: Read[Occurrences], where: str, zone: ZoneInfo) -> None:
        """Check that a line has dates, whatever else of it could not be read."""
        line = Occurrences(**(STAND_IN | read.values))
        try:
            rule = dates(replace(line, exdate=(), rdate=()), zone)
            first = next(iter(rule), None)
        except (ValueError, LookupError, TypeError) as error:
            why = _why(line.repeats or "", error)
            why = f"{line.repeats!r} is not an RRULE such as FREQ=WEEKLY;BYDAY=TH ({why})"
            self.wrong(f"{where}.repeats", why)
            return
        if "starts" not in read.values:
            return
        if first is None:
            self.wrong(where, f"{line.repeats!r} never happens")
            return
        self._left_out(line, rule, where, zone)
        # RFC 5545 leaves open what becomes of such a start; ours would be dropped in silence.
        if "rdate" in read.values and line.starts not in (first, *line.rdate):
            why = f"{line.starts.isoformat()} is no date of {line.repeats!r}; its first one is"
            also = "and put this one into rdate if it is a date too"
            self.wrong(f"{where}.starts", f"{why} {first.isoformat()}: write that, {also}")

    def _left_out(self, line: Occurrences, rule: Dates, where: str, zone: ZoneInfo) -> None:
        """Check that a line leaves out only dates of its own, and not all of them."""
        for left_out in line.exdate:
            if not rule.between(left_out, left_out, inc=True):
                self.wrong(f"{where}.exdate", f"{left_out.isoformat()} is none of its dates")
        if next(iter(dates(line, zone)), None) is None:
            self.wrong(where, "exdate leaves out all of its dates")

    def message(self, data: dict[str, Any], where: str) -> Message | None:
        """Read a table of `[[rooms.X.messages]]`."""
        read = self.read(Message, data, where, MESSAGE_CHECKS)
        if "ahead" in data and read.values.get("when", When.BEFORE) is not When.BEFORE:
            self.wrong(f"{where}.ahead", 'is for when = "before" only')
        return read.whole

    def calendar(self, data: Any, where: str) -> Source | None:
        """Read `calendar`; its file is named from the folder of the rules."""
        if data is None:
            return None
        if not isinstance(data, dict):  # it may be the secret address itself, so it is not shown
            self.wrong(where, 'expected a table such as { url = "https://...", word = "AMA" }')
            return None
        source = self.read(Source, data, where, CALENDAR_CHECKS).whole
        if source is None or source.file is None:
            return source
        # A calendar is known by its path: it must be the same in whatever folder a command is run.
        return replace(source, file=str((self.folder / source.file).absolute()))

    def pace(self, data: Any, where: str) -> Pace | None:
        """Read `[rooms.X.slow]`."""
        return None if data is None else self.read(Pace, data, where, PACE_CHECKS).whole

    def rows(
        self,
        data: dict[str, Any],
        key: str,
        where: str,
        read: Callable[[dict[str, Any], str], T | None],
    ) -> list[T]:
        """Read a list of tables, leaving out those that are wrong."""
        rows = data.get(key, [])
        if not isinstance(rows, list):
            self.wrong(f"{where}.{key}", f"expected a list of tables, got {shown(rows)}")
            return []
        at = {f"{where}.{key}[{n}]": row for n, row in enumerate(rows)}
        for place, row in at.items():
            if not isinstance(row, dict):
                self.wrong(place, f"expected a table, got {shown(row)}")
        found = (read(row, place) for place, row in at.items() if isinstance(row, dict))
        return [row for row in found if row is not None]


def _why(rule: str, error: Exception) -> str:
    """Say what is wrong with a recurrence, in dateutil's own words where they are for people."""
    if "FREQ=" not in rule.upper():
        return "it has no FREQ"
    if "\n" not in rule and any(part.count("=") != 1 for part in rule.split(";")):
        return "between two ; there is one NAME=VALUE"
    if isinstance(error, LookupError):
        return "it counts further than a year or a month goes"
    return str(error)
