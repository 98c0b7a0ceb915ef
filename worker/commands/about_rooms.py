"""The commands about rooms: a person's word on them, what comes, what would come, their calendars.

`worker.cli.main` puts them under `usher`. Each imports what it needs when it runs.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import click

from worker.clock import now
from worker.commands.edge import ENVIRON, instant, person, redis_url, rules_path, told

DAYS: Final = 14

_for = click.option("--for", "for_", default="2h", show_default=True, help="How long: 30m, 2h, 3d.")
_why = click.option("--why", default="", help="The reason, for whoever wonders later.")
_by = click.option("--by", default=None, help="Who says so.  [default: your user name]")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for other programs.")


@click.command("open")
@click.argument("room")
@_for
@_why
@_by
def open_(room: str, for_: str, why: str, by: str | None) -> None:
    """Open ROOM now, whatever its plan says, for a while.

    ROOM is a room's key (lounge), or that of one of its rooms on Whop (course/1).
    """
    _hold(room, for_, why, by, phase="open")


@click.command()
@click.argument("room")
@_for
@_why
@_by
def lock(room: str, for_: str, why: str, by: str | None) -> None:
    """Lock ROOM now, whatever its plan says, for a while."""
    _hold(room, for_, why, by, phase="locked")


@click.command()
@click.argument("room")
@click.argument("settings", nargs=-1, required=True)
@_for
@_why
@_by
def hold(room: str, settings: tuple[str, ...], for_: str, why: str, by: str | None) -> None:
    """Hold settings of ROOM, whatever its plan says, for a while.

    \b
      usher hold lounge cooldown=30 banned_words+=refund --for 2h
      usher hold lounge ban_urls=true who_can_react=no_one --why "link spam"

    `cooldown` is short for user_posts_cooldown_seconds. += and -= add a word and take one away.
    """
    _hold(room, for_, why, by, settings=settings)


def _hold(
    room: str,
    for_: str,
    why: str,
    by: str | None,
    *,
    phase: str | None = None,
    settings: tuple[str, ...] = (),
) -> None:
    from worker import rules as rules_file
    from worker.commands import holds
    from worker.policy.overrides import Hold
    from worker.policy.phases import Phase

    with told():
        since = now()
        wish = holds.parse(settings) if settings else holds.Wish()
        laid = Hold(
            since=since,
            until=holds.until(since, for_),
            who=person(by),
            why=why,
            phase=Phase(phase) if phase else None,
            settings=wish.settings,
            add_words=wish.add_words,
            remove_words=wish.remove_words,
        )
        rules = rules_file.load(rules_path())
        said = holds.say(rules, redis_url(), room, hold=laid, now=since, echo=click.echo)
        asyncio.run(said)


@click.command()
@click.argument("room")
def release(room: str) -> None:
    """End every hold on ROOM, and what was changed by hand on Whop: it goes by its plan again."""
    from worker import rules as rules_file
    from worker.commands import holds

    with told():
        rules = rules_file.load(rules_path())
        asyncio.run(holds.say(rules, redis_url(), room, hold=None, now=now(), echo=click.echo))


@click.command()
@click.option(
    "--days",
    type=click.IntRange(1, 400),
    default=DAYS,
    show_default=True,
    help="How far to look ahead.",
)
@click.option("--from", "from_", help="Begin here: a date or local time.  [default: now]")
@click.option("--room", help="Only this room, or one of its rooms on Whop.")
@_json
@click.option(
    "--svg", type=click.Path(path_type=Path, dir_okay=False), help="Draw a timeline into this file."
)
def plan(days: int, from_: str | None, room: str | None, as_json: bool, svg: Path | None) -> None:  # noqa: FBT001 - click calls it
    """Show everything that will happen by itself: openings, locks, windows, messages, archives.

    In each room's zone and in UTC, with what changes, what clashes, and the calls to Whop that it
    takes. With REDIS_URL set it knows what the workers know: calendars, holds, edits by hand.
    """
    import gc

    gc.disable()  # it ends before there is anything worth collecting
    from worker import rules as rules_file
    from worker.commands import plan as plans

    with told():
        url = redis_url() if ENVIRON.get("REDIS_URL") else None
        rules = rules_file.load(rules_path())
        overrides: dict[str, Any] = {}
        exist: dict[str, Any] = {}
        said: dict[str, str] = {}
        if url or rules.calendars:
            from worker.commands.outlook import keyed, outlook, standing

            rules, said = asyncio.run(keyed(rules, url)) if url else (rules, {})
            rules, overrides = asyncio.run(outlook(rules, url, now()))
            exist = asyncio.run(standing(rules, url)) if url else {}
        plans.show(
            rules,
            since=instant(from_, rules.zone, "--from") if from_ else now(),
            days=days,
            room=room,
            as_json=as_json,
            svg=svg,
            overrides=overrides,
            exist=exist,
            said=said,
            printed=now(),
        )


@click.command()
@click.option(
    "--days", type=click.IntRange(1, 1000), default=365, show_default=True, help="How long it runs."
)
@click.option(
    "--buyers", type=click.IntRange(1, 100_000), default=None, help="How many people buy."
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="The same seed, the same year."
)
@click.option("--from", "from_", help="Begin on this day, of UTC.  [default: today]")
def simulate(days: int, buyers: int | None, seed: int, from_: str | None) -> None:
    """Live through a year of your rules in a minute, against a local Whop: purchases,
    cancellations, refunds, an outage of a day, clock changes, raids, edits by hand.

    It says what happened, and exits with 1 when somebody was shut out or let in wrongly, or a room
    was not as it should have been.
    """
    from rich.console import Console

    from worker import rules as rules_file
    from worker.simulate import run as simulation

    with told():
        rules = rules_file.load(rules_path())
        code = simulation.simulate(
            rules,
            start=instant(from_, ZoneInfo("UTC"), "--from") if from_ else now(),
            days=days,
            buyers=buyers or simulation.BUYERS,
            seed=seed,
            console=Console(highlight=False),
        )
    sys.exit(code)


@click.command()
@click.argument("room")
def survey(room: str) -> None:
    """Look at how busy ROOM's chat was, and propose the numbers for its [rooms.ROOM.slow] table."""
    from worker import rules as rules_file
    from worker.commands.survey import survey as look

    with told():
        rules = rules_file.load(rules_path())
        click.echo("\n".join(asyncio.run(look(rules, redis_url(), room, now()))))


@click.group(invoke_without_command=True)
@_json
@click.pass_context
def calendar(ctx: click.Context, as_json: bool) -> None:  # noqa: FBT001 - click calls it
    """Show how each room stands with its calendar: read when, dates ahead, what is wrong."""
    from worker import rules as rules_file
    from worker.commands import calendar_report

    if ctx.invoked_subcommand is None:
        with told():
            rules = rules_file.load(rules_path())
            asyncio.run(calendar_report.show(rules, redis_url(), now(), as_json=as_json))


@calendar.command()
@click.argument("room", required=False)
def accept(room: str | None) -> None:
    """Take an emptied calendar at its word, for ROOM or for all: its dates are gone for good."""
    from worker import rules as rules_file
    from worker.commands import calendar_report

    with told():
        rules = rules_file.load(rules_path())
        asyncio.run(calendar_report.accept(rules, redis_url(), room, now=now(), echo=click.echo))


COMMANDS: Final = (open_, lock, hold, release, plan, simulate, survey, calendar)
