"""From where a calendar is to what it says: fetched or opened, and read in a process of its own."""

import asyncio
import os
import sys
import zoneinfo
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from worker.calendars import Broken
from worker.calendars.question import Ask, Found
from worker.calendars.web import LIMIT, NEVER_SEEN, TOO_LARGE, Body, Validators, Web, fetch
from worker.policy.calendars import Reading, Source
from worker.policy.occurrences import Occurrence

REACH: Final = timedelta(days=400)
"""How far back and ahead dates are known: a year, and what the seller plans around its end."""

SECONDS: Final = 20.0
"""For the reading alone. A calendar of 2 MiB, all of it one room's, takes 15 on a busy machine."""

Rooms = Mapping[str, tuple[Source, ZoneInfo]]
"""Each room that has a calendar, by its key, with its zone."""


async def body(source: Source, known: Validators, web: Web) -> Body | None:
    """Get a calendar, wherever it is; None where it is the one of `known`.

    Raises:
        Broken: it cannot be had.
    """
    if source.url:
        return await fetch(source.url, known, web)
    return await asyncio.to_thread(_opened, Path(str(source.file)))


def _opened(path: Path) -> Body:
    try:
        if not path.is_file():
            raise Broken(f"there is no file {path}")
        with path.open("rb") as file:
            content = file.read(LIMIT + 1)
    except OSError as error:
        raise Broken(f"the file {path} cannot be opened: {error.strerror}") from error
    if len(content) > LIMIT:
        raise Broken(TOO_LARGE)
    return Body(content)


async def expand(
    content: bytes, rooms: Rooms, now: datetime, *, seconds: float = SECONDS
) -> Reading:
    """Read a calendar: each room's dates from 400 days ago to 400 days ahead.

    Raises:
        Broken: it cannot be read, or not in time.
    """
    words = {room: (source.word, zone.key) for room, (source, zone) in rooms.items()}
    ask = msgspec.json.encode(Ask(now - REACH, now + REACH, words))
    try:
        async with asyncio.timeout(seconds):
            answer = await _read_apart(ask + b"\n" + content)
    except TimeoutError as error:
        raise Broken(f"it takes more than {seconds:g} seconds to read") from error
    found = msgspec.json.decode(answer, type=Found)
    if found.error:
        raise Broken(found.error)
    return Reading(found.entries, found.rooms)


async def _read_apart(question: bytes) -> bytes:
    """Ask a process that has our modules and zones, nothing else of our environment, and ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "worker.calendars.program"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PYTHONPATH": _joined(sys.path), "PYTHONTZPATH": _joined(zoneinfo.TZPATH)},
    )
    try:
        answer, _ = await process.communicate(question)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise Broken(f"the process that reads it ended early, with {process.returncode}")
    return answer


def _joined(folders: Iterable[str]) -> str:
    return os.pathsep.join(str(Path(folder).absolute()) for folder in folders)


async def read(
    source: Source, zone: ZoneInfo, now: datetime, *, web: Web | None = None
) -> tuple[Occurrence, ...]:
    """Return a room's dates as its calendar has them now, without Redis.

    Raises:
        Broken: the calendar cannot be had or read.
    """
    got = await body(source, NEVER_SEEN, web or Web()) or Body(b"")
    reading = await expand(got.content, {"room": (source, zone)}, now)
    return reading.rooms["room"]
