"""rooms.toml: from the seller's words to typed rooms, with every mistake named at once."""

import hashlib
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import time, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from msgspec import Meta

from worker.combinations import together
from worker.policy.calendars import Source
from worker.policy.messages import Message, When
from worker.policy.occurrences import Occurrences, dates
from worker.policy.pace import Pace
from worker.policy.phases import Phase
from worker.policy.rooms import Cohorts, Room
from worker.policy.schedule import Schedule, Weekday, Window
from worker.policy.settings import NAMES, Settings
from worker.tables import Tables, shown

KEY: Final = re.compile(r"[a-z0-9][a-z0-9_-]*")
UTC: Final = ZoneInfo("UTC")

AccountId = Annotated[str, Meta(pattern="^biz_", description="an id that begins with biz_")]
ProductId = Annotated[str, Meta(pattern="^prod_", description="an id that begins with prod_")]
ExperienceId = Annotated[str, Meta(pattern="^exp_", description="an id that begins with exp_")]
PlanId = Annotated[str, Meta(pattern="^plan_", description="an id that begins with plan_")]
Seats = Annotated[int, Meta(ge=1, description="a number of seats from 1 on")]
Name = Annotated[str, Meta(min_length=1, max_length=80, description="a text of 1 to 80 characters")]

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
    archive_after: timedelta | None = None
    one_room_per: Literal["series", "occurrence"] = "series"
    lead: timedelta | None = None
    seats: Seats | None = None
    plan: PlanId | None = None
    manual_edits: Literal["respect", "revert"] = "respect"


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
    reader = _Reader(Path(path).parent)
    rules = reader.file(data)
    if reader.mistakes or rules is None:
        raise RulesError(path, reader.mistakes)
    return replace(rules, mark=hashlib.sha256(text.encode()).hexdigest()[:12])


class _Reader(Tables):
    """Reads the tables of a rules file; calendars' files are named from its folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

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
        return Rules(top.account, tuple(made), zone=zone) if top else None

    def _shared_names(self, rooms: list[Room]) -> None:
        first: dict[str, Room] = {}
        for room in rooms:
            twin = first.setdefault(room.name, room)
            if twin is not room:
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
        together(data, phases, where, self.wrong)
        windows = self._list(data, "windows", where, self.window)
        lines = self._list(data, "occurrences", where, self.occurrences)
        messages = self._list(data, "messages", where, self.message)
        calendar = self.calendar(data.pop("calendar", None), f"{where}.calendar")
        pace = self.pace(data.pop("slow", None), f"{where}.slow")
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
            dated=() if calendar else None,
            archives=table.archive_after if table.archives is None else table.archives,
            phases=phases,
            paced=pace is not None,
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
            messages=tuple(messages),
            one_room_per=table.one_room_per,
            lead=table.lead,
            seats=table.seats,
            plan=table.plan,
            manual_edits=table.manual_edits,
            calendar=calendar,
            pace=pace,
        )

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
        if line is None:
            return None
        why = "expected a local time without an offset, such as 2026-12-03T18:00:00"
        for name in ("starts", "exdate", "rdate"):
            times = [line.starts] if name == "starts" else getattr(line, name)
            if any(time.tzinfo is not None for time in times):
                self.wrong(f"{where}.{name}", why)
                return None
        return line

    def _recurrences(self, lines: list[Occurrences], zone: ZoneInfo, where: str) -> None:
        for n, line in enumerate(lines):
            at = f"{where}.occurrences[{n}]"
            try:
                found = next(iter(dates(line, zone)), None)
                rule = dates(replace(line, exdate=(), rdate=()), zone)
            except (ValueError, KeyError, TypeError) as error:
                why = f"{line.repeats!r} is not an RRULE such as FREQ=WEEKLY;BYDAY=TH ({error})"
                self.wrong(f"{at}.repeats", why)
                continue
            for left_out in line.exdate:
                if not rule.between(left_out, left_out, inc=True):
                    self.wrong(f"{at}.exdate", f"{left_out.isoformat()} is none of its dates")
            if found is None:
                why = "exdate leaves out all of its dates"
                self.wrong(at, why if line.exdate else f"{line.repeats!r} never happens")

    def message(self, data: dict[str, Any], where: str) -> Message | None:
        message = self.table(Message, data, where)
        if message and "ahead" in data and message.when is not When.BEFORE:
            self.wrong(f"{where}.ahead", 'is for when = "before" only')
        if message and not message.ahead:
            self.wrong(f"{where}.ahead", 'expected more than 0; at the opening is when = "opening"')
        if message and not message.text.strip():
            self.wrong(f"{where}.text", "expected a text that is not empty")
        return message

    def calendar(self, data: Any, where: str) -> Source | None:
        if data is None:
            return None
        if not isinstance(data, dict):  # it may be the secret address itself, so it is not shown
            self.wrong(where, 'expected a table such as { url = "https://...", word = "AMA" }')
            return None
        source = self.table(Source, data, where)
        if source is None:
            return None
        if (source.url is None) == (source.file is None):
            self.wrong(where, 'expected a url or a file, and word = "..." for the entries')
        if source.url is not None and not _is_address(source.url):
            self.wrong(f"{where}.url", "expected an address that begins with https://")
        if source.file == "":
            self.wrong(f"{where}.file", "expected the path of a file")
        if not source.word.strip():
            self.wrong(f"{where}.word", "expected the word that the room's entries have in them")
        if not source.file:
            return source
        # A calendar is known by its path: it must be the same in whatever folder a command is run.
        return replace(source, file=str((self.folder / source.file).absolute()))

    def pace(self, data: Any, where: str) -> Pace | None:
        if data is None:
            return None
        pace = self.table(Pace, data, where)
        if pace and not 0 < pace.quiet < pace.busy:
            self.wrong(f"{where}.quiet", "expected a number over 0 and below `busy`")
        if pace and not (pace.steps and all(a < b for a, b in pairwise((0, *pace.steps)))):
            self.wrong(f"{where}.steps", "expected seconds that grow, such as [5, 15, 60]")
        if pace and pace.changes < 1:
            self.wrong(f"{where}.changes", "expected 1 or more changes an hour")
        return pace

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


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
