"""What `usher simulate` prints: a bar while it runs, the figures, and the laws that were broken."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from worker.simulate.figures import Figures, Seats
from worker.simulate.turns import Count
from worker.whop.quota import DEFAULT


@contextlib.contextmanager
def progress(console: Console, days: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, and nothing elsewhere; yields what hears of the days gone by."""
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TextColumn("days"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=days)
        yield lambda done: bar.update(task, completed=done)


def show(found: Figures, console: Console) -> None:
    """Print everything."""
    setting = found.setting
    console.print(
        f"[bold]{setting.days} days from {_instant(setting.start)}[/], "
        f"{setting.buyers} buyers, seed {setting.seed}"
    )
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in _rows(found):
        table.add_row(name, escape(value))
    console.print(table)
    _verdict(found, console)


def _verdict(found: Figures, console: Console) -> None:
    if not found.breaches:
        console.print("[green]No law was broken.[/]")
        return
    laws = "1 law was" if len(found.breaches) == 1 else f"{len(found.breaches)} laws were"
    console.print(f"[red]{laws} broken:[/]")
    for one in found.breaches:
        since = f", so since {_instant(one.since)}" if one.since != one.at else ""
        console.print(
            f"  {_instant(one.at)}  [bold]{one.law}[/]: {escape(one.who)}", soft_wrap=True
        )
        console.print(f"      {escape(one.what)}{since}", soft_wrap=True)
    console.print(f"The same run again: {escape(again(found))}", soft_wrap=True)


def again(found: Figures) -> str:
    """Return the command that repeats a run."""
    setting = found.setting
    return (
        f"usher simulate --days {setting.days} --buyers {setting.buyers} --seed {setting.seed} "
        f"--from {setting.start.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    )


def _rows(found: Figures) -> Iterator[tuple[str, str]]:
    yield "buyers", _counted(found.bought)
    yield "Whop away", _outages(found)
    yield "Usher", _usher(found)
    yield "troubles", _counted(found.troubles)
    yield "clock changes", _clock_changes(found)
    yield "openings", _turns(found.turns["opening"])
    yield "locks", _turns(found.turns["lock"])
    for seats in found.seats:
        yield "seats", _seats(seats)
    yield "grants", f"{found.granted} given, {found.revoked} revoked"
    yield "API calls", _calls(found)
    yield "deliveries", f"{found.deliveries} to the receiver, {found.jobs} jobs of the worker"
    if found.warnings:
        yield "warnings", _counted(found.warnings)
    for subject, reason in found.given_up.items():
        yield "given up", f"{subject}: {reason}"


def _usher(found: Figures) -> str:
    return (
        f"{found.starts} starts of the worker, {found.killed} times killed in the middle of a job"
    )


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {what}" for what, n in sorted(counts.items())) or "nothing"


def _outages(found: Figures) -> str:
    if not found.outages:
        return "never"
    when, longest = max(found.outages, key=lambda outage: outage[1])
    times = "once" if len(found.outages) == 1 else f"{len(found.outages)} times, the longest"
    return f"{times} for {_length(longest)} from {_instant(when)}"


def _clock_changes(found: Figures) -> str:
    changes = [f"{_instant(at)} in {zone}" for zone, at in found.clock_changes]
    return ", ".join(changes) or "none in these days"


def _turns(count: Count) -> str:
    on_time = count.all - count.late - count.missed
    latest = f"; the latest by {_length(count.latest)}" if count.late else ""
    return f"{count.all}: {on_time} on time, {count.late} late, {count.missed} missed{latest}"


def _seats(one: Seats) -> str:
    rooms = "1 room" if one.rooms == 1 else f"{one.rooms} rooms"
    of = f" of {one.seats}" if one.seats else ""
    return f"{one.room}: {one.members} members in {rooms}, {one.most}{of} in the fullest"


def _calls(found: Figures) -> str:
    worst, (allowed, seconds) = found.worst, DEFAULT
    if worst is None:
        return "none"
    return (
        f"{found.calls.total()}; the most in {seconds} s: {worst.calls} of {worst.operation}, "
        f"where {allowed} are allowed ({_instant(worst.at)})"
    )


def _instant(at: datetime) -> str:
    return f"{at.astimezone(UTC):%a %d %b %Y %H:%M:%S} UTC"


def _length(length: timedelta) -> str:
    seconds = length.total_seconds()
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    if seconds < 7200:  # noqa: PLR2004 - two hours
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
