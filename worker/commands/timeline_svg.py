"""The drawing of a plan: one page, A4 landscape, a row for each room and a column for each day."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from worker.commands.svg import INK, Sheet, cut, legend, wide
from worker.policy.occurrences import instant
from worker.policy.parts import Part, parts
from worker.policy.plan import Entry, Kind, Plan
from worker.policy.rooms import Room, split
from worker.policy.schedule import DAY, Timeline
from worker.policy.settings import WhoCanPost

MARGIN: Final = 40.0
RIGHT: Final = Sheet.WIDTH - MARGIN
NAMES: Final = 170.0
LEFT: Final = MARGIN + NAMES
"""Where the rooms' names end, and the days begin."""

TOP: Final = 128.0
BOTTOM: Final = 724.0
"""Where the rows begin and end; below them stands the legend."""

TALLEST: Final = 54.0
LOWEST: Final = 17.0
"""The height of a row. What has no place on the page even so is left out, and counted."""

ROOMY: Final = 34.0
"""The height from which a row has two lines for its name."""

LONGEST_DATE: Final = "28 Sept"
SATURDAY: Final = 5
SOFT: Final = "#7b8794"
GRID: Final = "#d9dee4"
WEEKEND: Final = "#f4f6f8"
STANDING: Final = "#9db8d9"
TEAM: Final = "#cfd6de"
OPEN: Final = "#1d4e89"
HOURS: Final = "#f2c14e"
SAYS: Final = "#c8553d"
JUMP: Final = "#8a2be2"
MARKS: Final = (
    ("box", STANDING, "always open"),
    ("box", TEAM, "only the team writes"),
    ("box", OPEN, "open for an occurrence"),
    ("box", HOURS, "a window tightens"),
    ("diamond", SAYS, "message"),
    ("line", INK, "room made"),
    ("2 2", INK, "room archived"),
    ("4 3", JUMP, "clocks change"),
)


def drawing(
    account: str, rooms: Sequence[Room], found: Plan, zone: ZoneInfo, printed: datetime
) -> str:
    """Return a plan as an SVG document; its days are those of `zone`."""
    page = _Page(rooms, found, zone)
    page.head(account, printed)
    page.days()
    for row in page.rows():
        page.room(row)
    page.jumps()
    page.foot()
    return page.sheet.text()


@dataclass(frozen=True, slots=True)
class _Row:
    room: Room
    top: float
    height: float
    parts: Sequence[Part]
    entries: Sequence[Entry]

    @property
    def middle(self) -> float:
        return self.top + self.height / 2


class _Page:
    """The page, drawn from the back to the front."""

    def __init__(self, rooms: Sequence[Room], found: Plan, zone: ZoneInfo) -> None:
        self.sheet = Sheet()
        self.found = found
        self.zone = zone
        fit = int((BOTTOM - TOP) / LOWEST)
        self.shown, self.left_out = rooms[:fit], max(0, len(rooms) - fit)
        self.tall = min(TALLEST, (BOTTOM - TOP) / max(1, len(self.shown)))
        self.end = TOP + self.tall * len(self.shown)

    def x(self, t: datetime) -> float:
        """Return where an instant is; what is outside of the plan's time is at its edges."""
        since, until = self.found.since, self.found.until
        return LEFT + (min(max(t, since), until) - since) / (until - since) * (RIGHT - LEFT)

    def head(self, account: str, printed: datetime) -> None:
        since, until = (t.astimezone(self.zone) for t in (self.found.since, self.found.until))
        self.sheet.write(MARGIN, 58, "The plan of the rooms", 22, weight="bold")
        span = f"{since:%a %-d %b %Y %H:%M} to {until:%a %-d %b %Y %H:%M}, {self.zone}"
        self.sheet.write(MARGIN, 78, span, 12)
        self.sheet.write(RIGHT, 58, account, 12, anchor="end")
        date = f"printed {printed.astimezone(self.zone):%-d %B %Y}"
        self.sheet.write(RIGHT, 78, date, 12, ink=SOFT, anchor="end")

    def days(self) -> None:
        """Draw the columns, with weekday and date over as many as there is room for."""
        label, free = wide(LONGEST_DATE, 11) + 3, LEFT
        column = (RIGHT - LEFT) * (DAY / (self.found.until - self.found.since))
        for begin, end in self._columns():
            local, x, to_x = begin.astimezone(self.zone), self.x(begin), self.x(end)
            if local.weekday() >= SATURDAY:
                self.sheet.box((x, TOP), (to_x - x, self.end - TOP), WEEKEND, "weekend")
            self.sheet.line((x, TOP - 4), (x, self.end), GRID)
            own = to_x - x >= label or column < label
            if own and x >= free and x + label <= RIGHT:
                self.sheet.write(x + 3, TOP - 20, f"{local:%a}", 11, weight="bold")
                self.sheet.write(x + 3, TOP - 7, f"{local:%-d %b}", 11, ink=SOFT)
                free = x + label
        self.sheet.line((RIGHT, TOP - 4), (RIGHT, self.end), GRID)
        self.sheet.line((MARGIN, TOP), (RIGHT, TOP), SOFT)

    def _columns(self) -> Iterator[tuple[datetime, datetime]]:
        """Yield the days, the first and the last perhaps in part."""
        day, begin = self.found.since.astimezone(self.zone).date(), self.found.since
        while begin < self.found.until:
            day += DAY
            end = min(instant(datetime.combine(day, time(0)), self.zone), self.found.until)
            if end > begin:
                yield begin, end
                begin = end

    def rows(self) -> Iterator[_Row]:
        """Yield the rooms' rows from above to below."""
        entries: dict[str, list[Entry]] = {}
        for entry in self.found.entries:
            entries.setdefault(split(entry.room)[0], []).append(entry)
        for n, room in enumerate(self.shown):
            mine = list(parts([room], self.found.since, self.found.until))
            yield _Row(room, TOP + n * self.tall, self.tall, mine, entries.get(room.key, ()))

    def room(self, row: _Row) -> None:
        """Draw a room: its name, when it is open, its windows, its messages, its first and last."""
        name = row.room.name.replace("{cohort}", "...").replace("{date}", "...")
        roomy, size = row.height >= ROOMY, 12 if row.height >= ROOMY else 9
        y = row.middle + (0 if roomy else size / 3)
        self.sheet.write(MARGIN, y, cut(name, size, NAMES - 8), size, weight="bold")
        if roomy:
            zone = row.room.schedule.zone
            under = row.room.key if zone == self.zone else f"{row.room.key}, {zone}"
            self.sheet.write(MARGIN, y + 13, cut(under, 9, NAMES - 8), 9, ink=SOFT)
        self.sheet.line((MARGIN, row.top + row.height), (RIGHT, row.top + row.height), GRID)
        self._bars(row)
        for entry in row.entries:
            self._mark(row, entry)

    def _bars(self, row: _Row) -> None:
        free = LEFT
        for part in row.parts:
            line = Timeline(part.schedule, part.since, part.until)
            if not part.schedule.eventful:
                team = part.schedule.base.who_can_post == WhoCanPost.ADMINS
                fill, kind = (TEAM, "team") if team else (STANDING, "standing")
                self._bar(row, (part.since, part.until), fill, kind)
            for span in line.openings:
                self._bar(row, span, OPEN, "open")
                free = self._said(row, span, free)
            for begin, end, _ in line.hours:
                span = (max(begin, part.since), min(end, part.until))
                self._bar(row, span, HOURS, "window")

    def _bar(self, row: _Row, span: tuple[datetime, datetime], fill: str, kind: str) -> None:
        """Draw a stretch of time; a window lies low upon whatever else there is."""
        x, to_x = (self.x(t) for t in span)
        if to_x <= x:
            return
        top, height = (0.02, 0.16) if kind == "window" else (-0.18, 0.36)
        w = max(1.5, to_x - x)
        at = min(x, RIGHT - w)
        corner = (at, row.middle + top * row.height)
        self.sheet.box(corner, (w, height * row.height), fill, kind)

    def _said(self, row: _Row, span: tuple[datetime, datetime], free: float) -> float:
        """Write a bar's hours over it, if there is room; return where the next text may begin."""
        opens, locks = (f"{t.astimezone(row.room.schedule.zone):%H:%M}" for t in span)
        text = f"{opens}-{locks}"
        x = min(self.x(span[0]), RIGHT - wide(text, 8))
        if x < free or row.height < ROOMY or not self.found.since <= span[0] < self.found.until:
            return free
        self.sheet.write(x, row.middle - row.height * 0.18 - 2, text, 8)
        return x + wide(text, 8) + 2

    def _mark(self, row: _Row, entry: Entry) -> None:
        x, reach = self.x(entry.at), row.height * 0.3
        above, below = (x, row.middle - reach), (x, row.middle + reach)
        match entry.kind:
            case Kind.MESSAGE:
                size = min(4.0, row.height * 0.12)
                y = row.middle + row.height * 0.18 + size + 1
                self.sheet.diamond(x, y, size, SAYS, "message")
            case Kind.MADE:
                self.sheet.line(above, below, INK, kind="made")
            case Kind.ARCHIVED:
                self.sheet.line(above, below, INK, kind="archived", dash="2 2")

    def jumps(self) -> None:
        """Draw each clock change as a dashed line, its label beneath the rows where it fits."""
        free = LEFT
        for jump in self.found.clock_changes:
            x, sign = self.x(jump.at), "+" if jump.jump > timedelta(0) else "-"
            hours, minutes = divmod(abs(jump.jump) // timedelta(minutes=1), 60)
            text = f"clocks {sign}{hours}:{minutes:02}, {jump.zone}"
            self.sheet.line((x, TOP - 4), (x, self.end + 4), JUMP, kind="jump", dash="4 3")
            at = max(free, min(x + 2, RIGHT - wide(text, 9)))
            if at + wide(text, 9) <= RIGHT:
                self.sheet.write(at, self.end + 13, text, 9, ink=JUMP)
                free = at + wide(text, 9) + 6

    def foot(self) -> None:
        """Explain the marks, and say how many rooms there was no room for."""
        y = Sheet.HEIGHT - 32
        legend(self.sheet, MARGIN, y, MARKS)
        if self.left_out:
            text = f"and {self.left_out:,} more rooms"
            self.sheet.write(RIGHT, y + 14, text, 10, anchor="end", ink=SOFT)
