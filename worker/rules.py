"""rooms.toml: from the seller's words to typed rooms, with every mistake named at once."""

import hashlib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import time, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar
from zoneinfo import ZoneInfo

from msgspec import Meta

from worker.policy.rooms import Cohorts, Room
from worker.policy.occurrences import Occurrences, dates
from worker.policy.phases import Phase
from worker.policy.schedule import Schedule, Weekday, Window
from worker.policy.settings import NAMES, Settings
from worker.tables import Tables, shown

KEY: Final = re.compile(r"[a-z0-9][a-z0-9_-]*")
UTC: Final = ZoneInfo("UTC")

AccountId = Annotated[str, Meta(pattern="^biz_", description="an id that begins with biz_")]
ProductId = Annotated[str, Meta(pattern="^prod_", description="an id that begins with prod_")]
ExperienceId = Annotated[str, Meta(pattern="^exp_", description="an id that begins with exp_")]
TITLE: Final = 80
LONGEST_COHORT: Final = "September 2026"
Name = Annotated[str, Meta(min_length=1, max_length=80, description="a text of 1 to 80 characters")]
"""Whop's limit for the title of a product, which a cohort's room shares with its product."""

T = TypeVar("T")


class RulesError(Exception):
    """The rules file cannot be used; the message names every mistake, one a line."""

    def __init__(self, path: str, mistakes: list[str]) -> None:
        count = f"{len(mistakes)} mistakes" if len(mistakes) > 1 else "a mistake"
        super().__init__("\n".join([f"{path} has {count}:", *(f"  {m}" for m in mistakes)]))
        self.mistakes = mistakes


@dataclass(frozen=True)
class Rules:
    """The whole file: whose account, and its rooms in the order of the file.

    `mark` is another one when the file's text is.
    """

    account: str
    rooms: tuple[Room, ...]
    mark: str = ""

    def room(self, key: str) -> Room | None:
        """Return a room by its key."""
        return next((room for room in self.rooms if room.key == key), None)


@dataclass(frozen=True, kw_only=True)
class _WindowTable:
    """`[[rooms.X.windows]]`, besides the settings."""

    from_: time
    to: time
    days: list[Weekday] = field(default_factory=lambda: list(Weekday))


@dataclass(frozen=True, kw_only=True)
class _RoomTable:
    """`[rooms.X]`, besides the settings, the phases and the lists of tables."""

    name: Name
    products: Annotated[list[ProductId], Meta(min_length=1)]
    timezone: ZoneInfo | None = None
    cohort: dict[str, Any] | None = None
    grant: Literal["create", "invite"] = "create"
    grace: timedelta | None = None
    on_refund: Literal["revoke", "keep"] | None = None
    on_dispute: Literal["revoke", "keep"] | None = None
    provision: Literal["ahead", "on_purchase"] = "ahead"
    experience: ExperienceId | None = None
    welcome: str | None = None
    opens: timedelta = timedelta(0)
    locks: timedelta = timedelta(0)
    archives: timedelta | None = None


@dataclass(frozen=True)
class _Nothing:
    """What a table of settings has besides them."""


@dataclass(frozen=True, kw_only=True)
class _FileTable:
    """The top of the file."""

    account: AccountId
    timezone: ZoneInfo = UTC


def load(path: Path) -> Rules:
    """Read and check the rules file.

    Raises:
        RulesError: the file is not there, is not TOML, or says something that cannot be.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        why = f"it cannot be read: {error.strerror}; set USHER_RULES to where your rooms.toml is"
        raise RulesError(str(path), [why]) from error
    except UnicodeDecodeError as error:
        raise RulesError(str(path), ["it is not UTF-8 text"]) from error
    return parse(text, str(path))


def parse(text: str, path: str = "rooms.toml") -> Rules:
    """Check the text of a rules file.

    Raises:
        RulesError: with every mistake found.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RulesError(path, [f"it is not TOML: {error}"]) from error
    reader = _Reader()
    rules = reader.file(data)
    if reader.mistakes or rules is None:
        raise RulesError(path, reader.mistakes)
    return replace(rules, mark=hashlib.sha256(text.encode()).hexdigest()[:12])


class _Reader(Tables):
    """Reads the tables of a rules file."""

    def file(self, data: dict[str, Any]) -> Rules | None:
        tables = data.pop("rooms", {})
        top = self.table(_FileTable, data, "")
        if not isinstance(tables, dict) or not tables:
            self.wrong("rooms", "expected at least one table [rooms.NAME]")
            return None
        zone = top.timezone if top else UTC
        rooms = [self.room(key, table, zone) for key, table in tables.items()]
        made = [room for room in rooms if room]
        self._shared_names(made)
        return Rules(top.account, tuple(made)) if top else None

    def _shared_names(self, rooms: list[Room]) -> None:
        for n, room in enumerate(rooms):
            twin = next((other for other in rooms[:n] if other.name == room.name), None)
            if twin:
                why = f"rooms.{twin.key} has this name too; a room is found again by its name"
                self.wrong(f"rooms.{room.key}.name", why)

    def room(self, key: str, data: Any, zone: ZoneInfo) -> Room | None:
        where = f"rooms.{key}"
        if not isinstance(data, dict):
            self.wrong(where, f"expected a table, got {shown(data)}")
            return None
        if not KEY.fullmatch(key):
            self.wrong(where, "a room's key has small letters, digits, - and _ only")
        base = self.settings(data, where)
        phases = {
            phase: self._only_settings(data.pop(phase), f"{where}.{phase}")
            for phase in Phase
            if phase in data
        }
        self._together(data, phases, where)
        windows = self._list(data, "windows", where, self.window)
        lines = self._list(data, "occurrences", where, self.occurrences)
        table = self.table(_RoomTable, data, where)
        if table is None:
            return None
        zone = table.timezone or zone
        self._recurrences(lines, zone, where)
        schedule = Schedule(
            zone=zone,
            base=base,
            windows=tuple(windows),
            occurrences=tuple(lines),
            opens=table.opens,
            locks=table.locks,
            archives=table.archives,
            phases=phases,
        )
        return Room(
            key=key,
            name=table.name,
            products=tuple(table.products),
            schedule=schedule,
            cohort=self.cohorts(table.cohort, f"{where}.cohort"),
            grant=table.grant,
            grace=timedelta(days=3) if table.grace is None else table.grace,
            on_refund=table.on_refund,
            on_dispute=table.on_dispute,
            provision=table.provision,
            experience=table.experience,
            welcome=table.welcome,
        )

    def _together(self, data: Mapping[str, Any], phases: Iterable[Phase], where: str) -> None:
        """Name what each key alone allows and all together do not."""
        if "cohort" in data:
            if "{cohort}" not in str(data.get("name", "{cohort}")):
                self.wrong(f"{where}.name", "a cohort room's name needs {cohort} in it")
            if len(str(data.get("name", "")).replace("{cohort}", LONGEST_COHORT)) > TITLE:
                self.wrong(f"{where}.name", f"is over {TITLE} characters with its cohort in it")
            out_of_place, why = ["experience"], "a cohort room makes its own rooms; none is adopted"
        else:
            out_of_place = ["grant", "grace", "on_refund", "on_dispute"]
            why = "is for rooms with a cohort; here the purchase itself opens the room"
        for key in data.keys() & out_of_place:
            self.wrong(f"{where}.{key}", why)
        if not data.get("occurrences"):
            for key in sorted({*data.keys() & {"opens", "locks", "archives"}, *phases}):
                self.wrong(f"{where}.{key}", "is for event rooms; this room has no occurrences")

    def cohorts(self, data: dict[str, Any] | None, where: str) -> Cohorts | None:
        if data is None:
            return None
        cohorts = self.table(Cohorts, data, where)
        if cohorts and (cohorts.by == "seats") != (cohorts.seats > 0):
            self.wrong(
                f"{where}.seats", 'expected a number of seats from 1 on, with by = "seats" only'
            )
        return cohorts

    def window(self, data: dict[str, Any], where: str) -> Window | None:
        settings = self.settings(data, where)
        if settings == Settings():
            self.wrong(where, f"a window needs a setting that it tightens: {', '.join(NAMES)}")
        table = self.table(_WindowTable, data, where)
        if table is None:
            return None
        return Window(table.from_, table.to, frozenset(table.days), settings)

    def occurrences(self, data: dict[str, Any], where: str) -> Occurrences | None:
        line = self.table(Occurrences, data, where)
        if line and line.starts.tzinfo is not None:
            why = "expected a local time without an offset, such as 2026-12-03T18:00:00"
            self.wrong(f"{where}.starts", why)
            return replace(line, starts=line.starts.replace(tzinfo=None))
        return line

    def _recurrences(self, lines: list[Occurrences], zone: ZoneInfo, where: str) -> None:
        for n, line in enumerate(lines):
            try:
                found = next(iter(dates(line, zone)), None)
            except (ValueError, KeyError, TypeError) as error:
                why = f"{line.repeats!r} is not an RRULE such as FREQ=WEEKLY;BYDAY=TH ({error})"
                self.wrong(f"{where}.occurrences[{n}].repeats", why)
                continue
            if found is None:
                self.wrong(f"{where}.occurrences[{n}]", f"{line.repeats!r} never happens")

    def settings(self, data: dict[str, Any], where: str) -> Settings:
        """Take the settings out of a table, leaving its other keys."""
        said = {name: data.pop(name) for name in NAMES if name in data}
        settings = self.table(Settings, said, where) or Settings()
        if (settings.user_posts_cooldown_seconds or 0) < 0:
            self.wrong(f"{where}.user_posts_cooldown_seconds", "expected 0 or more seconds")
        return settings

    def _only_settings(self, data: Any, where: str) -> Settings:
        if not isinstance(data, dict):
            self.wrong(where, f"expected a table of settings, got {shown(data)}")
            return Settings()
        settings = self.settings(data, where)
        self.table(_Nothing, data, where)
        return settings

    def _list(
        self,
        data: dict[str, Any],
        key: str,
        where: str,
        read: Callable[[dict[str, Any], str], T | None],
    ) -> list[T]:
        rows = data.pop(key, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            self.wrong(f"{where}.{key}", f"expected a list of tables, got {shown(rows)}")
            return []
        read_rows = (read(row, f"{where}.{key}[{n}]") for n, row in enumerate(rows))
        return [row for row in read_rows if row is not None]
