"""The command line's edge: the environment, the clock, and how a command that fails says so."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import click

ENVIRON: Final = os.environ  # noqa: TID251 - the process's edge: read here and handed on

YEARS: Final = range(2000, 2101)
"""The years that may be typed: far enough from the ends of the calendar to reckon around them."""


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)  # noqa: TID251 - the process's edge


def rules_path() -> Path:
    """Return where the rules file is."""
    return Path(ENVIRON.get("USHER_RULES") or "rooms.toml")


def redis_url() -> str:
    """Return REDIS_URL, for commands that are of no use without it."""
    if not ENVIRON.get("REDIS_URL"):
        raise click.ClickException(
            "REDIS_URL is missing or empty; `usher up` prints the one that it uses"
        )
    return ENVIRON["REDIS_URL"]


def instant(text: str, zone: ZoneInfo, option: str) -> datetime:
    """Return the instant that somebody typed for an option, local to a zone unless it says one."""
    from worker.policy.occurrences import instant as local

    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise click.ClickException(
            f"{option} {text}: expected a date or a time such as 2026-12-03 or 2026-12-03T18:00"
        ) from None
    if at.year not in YEARS:
        raise click.ClickException(
            f"{option} {text}: expected a year from {YEARS[0]} to {YEARS[-1]}"
        )
    return at.astimezone(UTC) if at.tzinfo else local(at, zone)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """End a command that cannot do what it should with one line that says why.

    Where nobody reads what it prints any more, as behind `| head`, it ends and says nothing.
    """
    try:
        yield
        sys.stdout.flush()
    except Exception as error:
        if isinstance(error, BrokenPipeError) or isinstance(error.__cause__, BrokenPipeError):
            raise BrokenPipeError(errno.EPIPE, "nobody reads it") from error  # click is quiet then
        known = _for_people(error)
        if known is None:
            raise
        raise known from error


def _for_people(error: Exception) -> click.ClickException | None:
    """Return a command's failure in one line; None for what nobody foresaw.

    Only a command that fails pays for the modules that name the errors.
    """
    from redis.exceptions import RedisError

    from worker import calendars, embedded, main, rules
    from worker.commands import holds, plan, report, verify

    people = (
        rules.RulesError,
        report.Unreachable,
        holds.HoldError,
        calendars.Broken,
        plan.UnknownRoom,
        plan.Unwritable,
        embedded.EmbeddedError,
        main.SettingsError,
        verify.VerifyError,
        ValueError,
    )
    if isinstance(error, people):
        return click.ClickException(str(error))
    if isinstance(error, RedisError | OSError):
        return click.ClickException(f"Redis does not answer at REDIS_URL: {error}")
    return None
