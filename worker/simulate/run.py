"""`usher simulate`: a seller's own rules against the local Whop, in virtual time."""

import asyncio
import contextlib
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog
from rich.console import Console

from webhooks.inbox import connect
from worker import embedded
from worker.commands.outlook import outlook
from worker.rules import Rules
from worker.simulate import report
from worker.simulate.figures import Figures, figures
from worker.simulate.world import Setting, World

BUYERS: Final = 800
"""Buyers by default: a year of the shipped rooms.toml with them takes about half a minute."""

Tamper = Callable[[World], None]


def simulate(
    rules: Rules, *, start: datetime, days: int, buyers: int, seed: int, console: Console
) -> int:
    """Simulate, print what came of it, and return the exit code: 1 when a law was broken.

    It begins with a day of UTC; calendars are read once, and stay as they are.

    Raises:
        EmbeddedError: there is no embedded Redis-compatible server, or it did not start.
        Broken: a calendar cannot be read.
    """
    day = start.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    known = asyncio.run(_with_dates(rules, start))
    setting = Setting(rules=known, start=day, days=days, buyers=buyers, seed=seed)
    with (
        tempfile.TemporaryDirectory(prefix="usher-simulate-") as folder,
        embedded.running(Path(folder), embedded.free_port(), fsync="no") as redis_url,
        report.progress(console, days) as day_over,
    ):
        found = run(setting, redis_url, day_over=day_over)
    report.show(found, console)
    return 1 if found.breaches else 0


async def _with_dates(rules: Rules, now: datetime) -> Rules:
    """Return the rules with their calendars' dates, as if they stood in the rules file."""
    dated, _ = await outlook(rules, None, now)
    return replace(dated, rooms=tuple(replace(room, calendar=None) for room in dated.rooms))


def run(
    setting: Setting,
    redis_url: str,
    *,
    day_over: Callable[[int], None] = lambda _: None,
    worker_rules: Rules | None = None,
    tamper: Tamper = lambda _: None,
) -> Figures:
    """Simulate on an empty Redis and return the figures.

    Tests break things to see the laws fail: `worker_rules` are not those by which it is judged,
    `tamper` does something to the world before it lives.
    """

    async def living() -> Figures:
        redis = connect(redis_url)
        world = World(setting, redis, worker_rules=worker_rules)
        tamper(world)
        try:
            await world.live(day_over)
            return await figures(world, warnings)
        finally:
            await world.close()
            await redis.aclose()

    import uvloop  # noqa: PLC0415 - not on every platform, and slow to import

    with _listening() as warnings, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(living())


@contextlib.contextmanager
def _listening() -> Iterator[Counter[str]]:
    """Count what Usher would log as a warning or worse, and print nothing of it."""
    heard: Counter[str] = Counter()

    def hear(_: Any, __: str, line: MutableMapping[str, Any]) -> Any:
        heard[str(line["event"])] += 1
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[hear],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        cache_logger_on_first_use=False,
    )
    try:
        yield heard
    finally:
        structlog.configure(**before)
