"""The command line's edge: the environment, the clock, and how a command that fails says so."""

import contextlib
import errno
import getpass
import os
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import click

ENVIRON: Final = os.environ  # noqa: TID251 - the process's edge: read here and handed on

FAULT: Final = 70
"""How a command exits that met a mistake in Usher; sysexits.h calls it EX_SOFTWARE."""

SAID: Final = 300
"""Letters that are shown of what a mistake says of itself."""

YEARS: Final = range(2000, 2101)
"""The years that may be typed: far enough from the ends of the calendar to reckon around them."""


def rules_path() -> Path:
    """Return where the rules file is."""
    return Path(ENVIRON.get("USHER_RULES") or "rooms.toml")


def redis_url() -> str:
    """Return REDIS_URL, for commands that are of no use without it."""
    if not ENVIRON.get("REDIS_URL"):
        raise click.ClickException(
            "REDIS_URL is missing or empty; `usher up` prints the one that it uses"
        )
    from webhooks.inbox import connect

    try:
        connect(ENVIRON["REDIS_URL"])
    except ValueError:  # the cause is not told: it may quote a password
        raise click.ClickException(
            "REDIS_URL is not a redis://, rediss://, unix:// or redis+sentinel:// URL"
        ) from None
    return ENVIRON["REDIS_URL"]


def person(by: str | None) -> str:
    """Return who gives an order: who says so, or who is logged in here."""
    try:
        return by or getpass.getuser()
    except (KeyError, OSError):  # in a container, whose user has no name
        raise click.ClickException("the user has no name here; say who you are with --by") from None


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
    """End a command that cannot do what it should with a line that says why.

    What nobody foresaw is shown as a fault of Usher's, and how to report it. USHER_DEBUG=1 shows
    where it came from, too.

    Where nobody reads what it prints any more, as behind `| head`, it ends and says nothing.
    """
    try:
        yield
        sys.stdout.flush()
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        if isinstance(error, BrokenPipeError) or isinstance(error.__cause__, BrokenPipeError):
            raise BrokenPipeError(errno.EPIPE, "nobody reads it") from error  # click is quiet then
        if ENVIRON.get("USHER_DEBUG") == "1":
            traceback.print_exception(error)
        raise _for_people(error) from error


def _for_people(error: Exception) -> click.ClickException:
    """Return a command's failure in words: in one line, where somebody foresaw it.

    Only a command that fails pays for the modules that name the errors.
    """
    from worker import calendars, embedded, main, rules
    from worker.admin.reach import Unreachable, trouble
    from worker.commands import evidence, holds, plan, privacy, verify
    from worker.whop.errors import WhopError

    people = (
        rules.RulesError,
        Unreachable,
        evidence.NotFound,
        privacy.StillHere,
        holds.HoldError,
        calendars.Broken,
        plan.UnknownRoom,
        plan.Unwritable,
        embedded.EmbeddedError,
        main.SettingsError,
        verify.VerifyError,
        WhopError,
    )
    if isinstance(error, people):
        return click.ClickException(str(error))
    redis = trouble(error)
    return click.ClickException(redis) if redis else Fault(error)


class Fault(click.ClickException):
    """What nobody foresaw: a mistake in Usher, which is shown as one."""

    exit_code = FAULT

    def __init__(self, error: Exception) -> None:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:SAID]
        super().__init__(
            f"this is a fault of Usher's, and not of yours: {said} ({_where(error)}).\n"
            "What the command was to do may be half done; most can be run again.\n"
            "Please report it with the command, these lines, what `usher --version` prints, and "
            "what more\nis shown with USHER_DEBUG=1. Look it over before: it may name people."
        )


def _where(error: Exception) -> str:
    """Return the place in our code where an error arose, or else the last one in any."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if {"worker", "webhooks"} & {*Path(frame.filename).parts}]
    last = (ours or frames)[-1]
    return f"{'/'.join(Path(last.filename).parts[-3:])}:{last.lineno}"
