"""rooms.toml: from the seller's words to typed rooms, with every mistake named at once."""

import hashlib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import time, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from msgspec import Meta

from worker.combinations import ROOM_CHECKS, WINDOW_CHECKS, together
from worker.policy.calendars import Source
from worker.policy.messages import Message
from worker.policy.occurrences import Occurrences
from worker.policy.pace import Pace
from worker.policy.phases import Phase
from worker.policy.rooms import REMIND, Room
from worker.policy.schedule import Schedule, Weekday, Window
from worker.policy.settings import NAMES, Settings
from worker.room_tables import RoomTables
from worker.tables import shown

WITHIN: Final = ("windows", "occurrences", "messages", "calendar", "slow", *map(str, Phase), *NAMES)
"""The keys of a room that are read apart from the others."""

KEY: Final = re.compile(r"[a-z0-9][a-z0-9_-]*")
UTC: Final = ZoneInfo("UTC")

AccountId = Annotated[str, Meta(pattern="^biz_", description="an id that begins with biz_")]
ProductId = Annotated[str, Meta(pattern="^prod_", description="an id that begins with prod_")]
ExperienceId = Annotated[str, Meta(pattern="^exp_", description="an id that begins with exp_")]
PlanId = Annotated[str, Meta(pattern="^plan_", description="an id that begins with plan_")]
Seats = Annotated[int, Meta(ge=1, description="a number of seats from 1 on")]
Name = Annotated[str, Meta(min_length=1, max_length=80, description="a text of 1 to 80 characters")]


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
    zone: ZoneInfo = UTC

    @property
    def calendars(self) -> dict[str, tuple[Source, ZoneInfo]]:
        """The calendars of the rooms that have one, with their zones."""
        return {r.key: (r.calendar, r.schedule.zone) for r in self.rooms if r.calendar}

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
    was: str | list[str] = field(default_factory=list)
    timezone: ZoneInfo | None = None
    cohort: dict[str, Any] | None = None
    grant: Literal["auto", "create", "invite", "link"] = "auto"
    link_message: str | None = None
    remind: timedelta | None = None
    strangers: Literal["remove", "report"] | None = None
    grace: timedelta | None = None
    on_refund: Literal["revoke", "keep", "cancel"] | None = None
    on_dispute: Literal["revoke", "keep", "cancel"] | None = None
    provision: Literal["ahead", "on_purchase"] = "ahead"
    experience: ExperienceId | None = None
    welcome: str | None = None
    opens: timedelta = timedelta(0)
    locks: timedelta = timedelta(0)
    archives: timedelta | None = None
    archive_after: timedelta | None = None
    one_room_per: Literal["series", "occurrence"] = "series"
    lead: timedelta | None = None
    seats: Seats | None = None
    plan: PlanId | None = None
    manual_edits: Literal["respect", "revert"] = "respect"


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
    reader = _Reader(Path(path).parent)
    rules = reader.file(data)
    if reader.mistakes or rules is None:
        raise RulesError(path, reader.mistakes)
    return replace(rules, mark=hashlib.sha256(text.encode()).hexdigest()[:12])


def doubts(rules: Rules) -> list[str]:
    """Return what may be right in the rules, and is not now.

    No worker minds it: while a calendar is away, its last good reading stands.
    """
    why = "a path is seen from the folder of the rules file"
    return [
        f"rooms.{room.key}.calendar.file: there is no file {room.calendar.file}; {why}"
        for room in rules.rooms
        if room.calendar and room.calendar.file and not Path(room.calendar.file).is_file()
    ]


@dataclass(frozen=True)
class _Within:
    """What a room's table has within it."""

    base: Settings
    phases: dict[Phase, Settings]
    windows: list[Window]
    lines: list[Occurrences]
    messages: list[Message]
    calendar: Source | None
    pace: Pace | None


class _Reader(RoomTables):
    """Reads the tables of a rules file."""

    def file(self, data: dict[str, Any]) -> Rules | None:
        tables = data.pop("rooms", {})
        top = self.read(_FileTable, data, "", others=["rooms"])
        if not isinstance(tables, dict) or not tables:
            self.wrong("rooms", "expected at least one table [rooms.NAME]")
            return None
        zone = top.values.get("timezone", UTC)
        rooms = [self.room(key, table, zone) for key, table in tables.items()]
        self._shared(tables, "name", "has this name too; a room is found again by its name")
        self._shared(tables, "experience", "takes over this chat too; a chat is one room's")
        made = tuple(room for room in rooms if room)
        self._before(made, tables)
        return Rules(top.whole.account, made, zone=zone) if top.whole else None

    def _shared(self, tables: dict[str, Any], what: str, why: str) -> None:
        """Name each room that says the same as one before it, whatever else is wrong with both."""
        first: dict[str, str] = {}
        for key, table in tables.items():
            said = table.get(what) if isinstance(table, dict) else None
            if not isinstance(said, str):
                continue
            twin = first.setdefault(said.strip(), key)
            if twin != key:
                self.wrong(f"rooms.{key}.{what}", f"rooms.{twin} {why}")

    def _before(self, rooms: Sequence[Room], tables: dict[str, Any]) -> None:
        """Check that no key that a room had before is another's, now or before."""
        first: dict[str, str] = {}
        for room in rooms:
            for was in room.was:
                twin = first.setdefault(was, room.key)
                where = f"rooms.{room.key}.was"
                if not KEY.fullmatch(was):
                    self.wrong(where, f"{was!r} was no room's key: they have small letters only")
                elif was in tables:
                    self.wrong(where, f"rooms.{was} is there still; only a key that has gone was")
                elif twin != room.key:
                    self.wrong(where, f"rooms.{twin} takes over {was} too; a room becomes one room")

    def room(self, key: str, data: Any, zone: ZoneInfo) -> Room | None:
        where = f"rooms.{key}"
        if not isinstance(data, dict):
            self.wrong(where, f"expected a table, got {shown(data)}")
            return None
        if not KEY.fullmatch(key):
            self.wrong(where, "a room's key has small letters, digits, - and _ only")
        together(data, [phase for phase in Phase if phase in data], where, self.wrong)
        apart = {name: data.pop(name) for name in WITHIN if name in data}
        read = self.read(_RoomTable, data, where, ROOM_CHECKS, others=WITHIN)
        zone = read.values.get("timezone") or zone
        cohort = self.cohorts(read.values.get("cohort"), f"{where}.cohort")
        within = self._within(apart, where, zone)
        table = read.whole
        if table is None:
            return None
        return Room(
            key=key,
            name=table.name,
            products=tuple(table.products),
            schedule=_schedule(table, within, zone),
            cohort=cohort,
            grant=table.grant,
            link_message=table.link_message,
            remind=REMIND if table.remind is None else table.remind,
            strangers=table.strangers,
            grace=timedelta(days=3) if table.grace is None else table.grace,
            on_refund=table.on_refund,
            on_dispute=table.on_dispute,
            provision=table.provision,
            experience=table.experience,
            welcome=table.welcome,
            messages=tuple(within.messages),
            one_room_per=table.one_room_per,
            lead=table.lead,
            seats=table.seats,
            plan=table.plan,
            manual_edits=table.manual_edits,
            calendar=within.calendar,
            pace=within.pace,
            was=(table.was,) if isinstance(table.was, str) else tuple(table.was),
        )

    def _within(self, data: dict[str, Any], where: str, zone: ZoneInfo) -> _Within:
        """Read the settings and the tables of a room."""
        return _Within(
            base=self.settings(data, where),
            phases={
                phase: self.only_settings(data[phase], f"{where}.{phase}")
                for phase in Phase
                if phase in data
            },
            windows=self.rows(data, "windows", where, self.window),
            lines=self.rows(data, "occurrences", where, partial(self.occurrences, zone=zone)),
            messages=self.rows(data, "messages", where, self.message),
            calendar=self.calendar(data.get("calendar"), f"{where}.calendar"),
            pace=self.pace(data.get("slow"), f"{where}.slow"),
        )

    def window(self, data: dict[str, Any], where: str) -> Window | None:
        if not data.keys() & {*NAMES}:
            self.wrong(where, f"a window needs a setting that it tightens: {', '.join(NAMES)}")
        settings = self.settings(data, where)
        table = self.read(_WindowTable, data, where, WINDOW_CHECKS, others=NAMES).whole
        if table is None:
            return None
        return Window(table.from_, table.to, frozenset(table.days), settings)


def _schedule(table: _RoomTable, within: _Within, zone: ZoneInfo) -> Schedule:
    return Schedule(
        zone=zone,
        base=within.base,
        windows=tuple(within.windows),
        occurrences=tuple(within.lines),
        opens=table.opens,
        locks=table.locks,
        dated=() if within.calendar else None,
        archives=table.archive_after if table.archives is None else table.archives,
        phases=within.phases,
        paced=within.pace is not None,
    )
