"""The commands about members: does everybody have what they bought, and if not, why.

`worker.cli.main` puts them under `usher`. Each imports what it needs when it runs.
"""

import asyncio
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import click

from worker.clock import now
from worker.commands.edge import ENVIRON, instant, person, redis_url, rules_path, told

if TYPE_CHECKING:
    from worker.catchup import Found

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for other programs.")
_by = click.option("--by", default=None, help="Who says so.  [default: your user name]")


def _rules() -> Any:
    from worker import rules

    return rules.load(rules_path())


def _settings() -> Any:
    """Read the environment as a worker does, and log as one: beside what is printed."""
    from webhooks import log
    from worker.main import Settings

    settings = Settings.from_env(ENVIRON)
    log.configure(settings.log)
    return settings


@click.command()
@click.option("--repair", is_flag=True, help="Put right what can be; a second run finds nothing.")
@click.option(
    "--take",
    type=click.IntRange(1),
    help="Put out so many whose end nothing explains: the number that you have seen.",
)
@click.option("--room", help="Only this room.")
@click.option("--user", help="Only this person (user_...).")
@_json
def verify(
    repair: bool,  # noqa: FBT001 - click calls it
    take: int | None,
    room: str | None,
    user: str | None,
    as_json: bool,  # noqa: FBT001 - as above
) -> None:
    """Prove that everybody has what they paid for: compare Whop, and what Usher remembers, with
    what should be.

    It exits with 1 where there is a difference. It needs WHOP_API_KEY and REDIS_URL, as `work`.
    """
    from worker.commands import verify as verification

    with told():
        checked = verification.verify(
            _settings(), repair=repair, take=take, room=room, user=user, as_json=as_json
        )
        code = asyncio.run(checked)
    sys.exit(code)


@click.command("catch-up")
@click.option(
    "--since", help="Look back to here: a date or local time.  [default: where it stopped]"
)
def catch_up(since: str | None) -> None:
    """Fetch what never arrived from Whop's own log of deliveries, 30 days back at most.

    `usher work` does so when it starts and every five minutes.
    """
    from worker import main as worker

    with told():
        settings = _settings()
        at = instant(since, settings.rules.zone, "--since") if since else None
        if at and at > now():
            raise click.ClickException(f"--since {since}: that is still to come")
        found = asyncio.run(worker.catch_up(settings, at))
        if found is None:
            raise click.ClickException("nothing could be fetched; the log above says why")
        click.echo("\n".join(_caught_up(found, at, settings.rules.zone)))


def _caught_up(found: "Found", asked: datetime | None, zone: ZoneInfo) -> Iterator[str]:
    """Say what a catch-up found, and where it did not go back as far as was asked."""
    from worker.words import counted, local

    if asked and asked < found.since:
        yield f"Whop's log goes back 30 days: it was read since {local(found.since, zone)}."
    lost = "1 was lost and is" if found.stored == 1 else f"{found.stored} were lost and are"
    yield (
        f"{counted(found.attempts, 'attempt')} in the log of {found.webhook}: {lost} taken in, "
        f"{found.known} had come in another way."
    )
    for id_ in found.unreadable:
        yield f"{id_} says nothing that could be read; look at it on Whop."


@click.command()
@click.argument("user")
@click.argument("room", required=False)
@_json
def explain(user: str, room: str | None, as_json: bool) -> None:  # noqa: FBT001 - click calls it
    """Tell why USER is in ROOM, or is not: what arrived, what Whop said, what Usher did.

    USER is a user_ id, or the id of a membership, a payment or a delivery of theirs. Without ROOM
    it tells of all.
    """
    from worker.commands import explain as explanation

    with told():
        rules = _rules()
        asyncio.run(
            explanation.explain(
                rules, redis_url(), user, room, now=now(), echo=click.echo, as_json=as_json
            )
        )


@click.group(invoke_without_command=True)
@click.pass_context
def dead(ctx: click.Context) -> None:
    """List, show, retry or discard what failed for good."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(dead_list)


def _choosing(command: Any) -> Any:
    """Give a command the options that say which of the dead are meant."""
    for option in reversed(
        [
            click.argument("subjects", nargs=-1),
            click.option("--type", "kind", help="Only these: member, room, channel, payment, ..."),
            click.option("--reason", help="Only those with this in their reason."),
            click.option("--older", help="Only those that died longer ago than this: 2h, 3d."),
            click.option("--newer", help="Only those that died since: 2h, 3d."),
        ]
    ):
        command = option(command)
    return command


def _choice(
    subjects: tuple[str, ...], said: Mapping[str, str | None], *, everything: bool = False
) -> Any:
    from worker.commands.dead import Choice
    from worker.commands.evidence import before

    at = now()
    return Choice(
        subjects=subjects,
        kind=said["kind"],
        reason=said["reason"],
        older=before(at, said["older"], "--older"),
        newer=before(at, said["newer"], "--newer"),
        everything=everything,
    )


@dead.command("list")
@_choosing
@_json
def dead_list(as_json: bool, subjects: tuple[str, ...] = (), **said: str | None) -> None:  # noqa: FBT001 - click calls it
    """List what failed for good."""
    from worker.commands import dead as graves

    with told():
        wanted = _choice(subjects, said)
        rules = _rules()
        asyncio.run(graves.list_(rules, redis_url(), wanted, echo=click.echo, as_json=as_json))


@dead.command("show")
@click.argument("subject")
@_json
def dead_show(subject: str, as_json: bool) -> None:  # noqa: FBT001 - click calls it
    """Show SUBJECT (member:user_...) with its deliveries and its tries."""
    from worker.commands import dead as graves

    with told():
        asyncio.run(graves.show(_rules(), redis_url(), subject, echo=click.echo, as_json=as_json))


@dead.command("retry")
@_choosing
@click.option("--all", "everything", is_flag=True, help="All of them.")
def dead_retry(everything: bool, subjects: tuple[str, ...], **said: str | None) -> None:  # noqa: FBT001 - click calls it
    """Try again what failed for good, once you have mended the cause. It is always safe."""
    from worker.commands import dead as graves

    with told():
        wanted = _choice(subjects, said, everything=everything)
        asyncio.run(graves.retry(_rules(), redis_url(), wanted, now=now(), echo=click.echo))


@dead.command("discard")
@_choosing
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--why", default="", help="The reason, for whoever wonders later.")
@_by
def dead_discard(
    everything: bool,  # noqa: FBT001 - click calls it
    subjects: tuple[str, ...],
    why: str,
    by: str | None,
    **said: str | None,
) -> None:
    """Drop what failed for good, with a note of it."""
    from worker.commands import dead as graves

    with told():
        wanted = _choice(subjects, said, everything=everything)
        asyncio.run(
            graves.discard(
                _rules(),
                redis_url(),
                wanted,
                who=person(by),
                why=why,
                now=now(),
                echo=click.echo,
            )
        )


@click.group(invoke_without_command=True)
@click.pass_context
def deliveries(ctx: click.Context) -> None:
    """List, show or retry what Whop delivered."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(deliveries_list)


@deliveries.command("list")
@click.option("--type", "kind", help="Only these: membership.activated, or membership for all.")
@click.option("--user", help="Only about this person (user_...).")
@click.option("--since", help="Only those received since: a date or local time.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@_json
def deliveries_list(
    kind: str | None = None,
    user: str | None = None,
    since: str | None = None,
    limit: int = 50,
    *,
    as_json: bool = False,
) -> None:
    """List the newest deliveries, and what became of each."""
    from worker.commands import delivery_report
    from worker.commands.deliveries import Filter

    with told():
        rules = _rules()
        at = instant(since, rules.zone, "--since") if since else None
        wanted = Filter(kind, user, at)
        asyncio.run(
            delivery_report.list_(
                rules, redis_url(), wanted, limit=limit, echo=click.echo, as_json=as_json
            )
        )


@deliveries.command("show")
@click.argument("delivery")
@_json
def deliveries_show(delivery: str, as_json: bool) -> None:  # noqa: FBT001 - click calls it
    """Show all that is kept of DELIVERY (msg_...), and each look that it led to."""
    from worker.commands import delivery_report

    with told():
        asyncio.run(
            delivery_report.show(_rules(), redis_url(), delivery, echo=click.echo, as_json=as_json)
        )


@deliveries.command("retry")
@click.argument("delivery", nargs=-1, required=True)
def deliveries_retry(delivery: tuple[str, ...]) -> None:
    """Look again at whom these deliveries are about. It is always safe."""
    from worker.commands import delivery_report

    with told():
        asyncio.run(
            delivery_report.retry(_rules(), redis_url(), delivery, now=now(), echo=click.echo)
        )


@click.command()
@click.argument("user")
@click.option("--anyway", is_flag=True, help="Also somebody who has access still.")
@_by
def forget(user: str, anyway: bool, by: str | None) -> None:  # noqa: FBT001 - click calls it
    """Erase what is kept of USER (user_...), and leave a proof that does not say who it was."""
    from worker.commands import privacy

    with told():
        who = person(by)
        asyncio.run(
            privacy.forget(
                _rules(), redis_url(), user, by=who, now=now(), echo=click.echo, anyway=anyway
            )
        )


@click.command()
@click.argument("user")
def export(user: str) -> None:
    """Print all that is kept of USER (user_...), as JSON."""
    from worker.commands import privacy

    with told():
        asyncio.run(privacy.export(_rules(), redis_url(), user))


COMMANDS: Final = (verify, catch_up, explain, dead, deliveries, forget, export)
