"""The command line, and what runs as a process: `usher up | receive | work | sandbox`.

Each command imports what it needs when it runs, so that `--help` answers at once.
"""

import contextlib
import sys
import zoneinfo
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from worker.cli.brake import brake
from worker.cli.seat import seat
from worker.clock import now
from worker.commands import about_members, about_rooms
from worker.commands.edge import ENVIRON, redis_url, rules_path, told

LOCAL_WHOP = "http://127.0.0.1:4000"

F = TypeVar("F", bound=Callable[..., Any])


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="usher")
def main() -> None:
    """Usher for paid communities on Whop: it meets every buyer after checkout, shows them to their
    room, opens and locks the event rooms on time, and keeps order in the chat.

    \b
    New here?      usher up       everything on this machine, with a local Whop
    In production  usher receive  and  usher work, with one Redis between them

    \b
    Environment:
      WHOP_API_KEY         the account's API key (work)
      WHOP_WEBHOOK_SECRET  one or more secrets, comma-separated (receive)
      REDIS_URL            redis://, rediss://, unix:// or redis+sentinel://
      USHER_RULES          the rules file                 [rooms.toml]
      USHER_HOST           where the receiver listens     [127.0.0.1]
      USHER_PORT           its port                       [8000]
      USHER_WORK_PORT      where a worker shows its health and metrics
      USHER_RETENTION_DAYS for how many days deliveries are kept [35]
      WHOP_WEBHOOK         our webhook's id or URL, where several could be meant
      USHER_ENABLE_WEBHOOK yes: enable it again where Whop gave it up
      USHER_LOG            json or console                [json; console on a terminal]
      USHER_DEBUG          1: show where an error of a command came from
      WHOP_API_URL         Whop's API, with /api/v1       [https://api.whop.com/api/v1]
    """
    zoneinfo.reset_tzpath(())  # the pinned package's zones; a system's may be years old


@main.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".usher"),
    show_default=True,
    help="Folder of the data that outlives a stop.",
)
@click.option(
    "--whop-port",
    type=click.IntRange(1, 65535),
    default=4000,
    show_default=True,
    help="Port of the local Whop.",
)
def up(data: Path, whop_port: int) -> None:
    """Run everything here: Valkey, a local Whop, the receiver and a worker.

    With WHOP_API_KEY and WHOP_WEBHOOK_SECRET set it talks to the real Whop instead of a local one.
    """
    from worker import embedded, rules
    from worker import up as everything

    try:
        everything.up(ENVIRON, data, whop_port, click.echo)
    except (everything.UpError, rules.RulesError, embedded.EmbeddedError) as error:
        raise click.ClickException(str(error)) from error


@main.command()
def receive() -> None:
    """Hear Whop: the web server that takes deliveries and puts them into Redis."""
    from webhooks import main as receiver

    try:
        receiver.serve(receiver.Settings.from_env(ENVIRON))
    except (receiver.SettingsError, receiver.PortTaken) as error:
        raise click.ClickException(str(error)) from error


@main.command()
def work() -> None:
    """Act: take what the receiver stored, and bring members, rooms and channels up to date.

    Run as many as you like, on as many machines, with the same REDIS_URL.
    """
    from worker import health, rules
    from worker import main as worker

    try:
        worker.work(worker.Settings.from_env(ENVIRON))
    except (worker.SettingsError, rules.RulesError, health.PortTaken) as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
def check(file: Path | None) -> None:
    """Check the rules file, offline, and show what each room does next.

    FILE is the rules file; without it, USHER_RULES or rooms.toml. Only with REDIS_URL set can it
    know of a room whose key was changed; where Redis does not answer, it says nothing of that.
    """
    from worker import rules
    from worker.commands import report

    with told():
        found = rules.load(file or rules_path())
        said: dict[str, str] | None = None
        if ENVIRON.get("REDIS_URL"):
            import asyncio

            from worker.admin.reach import Unreachable, reaching
            from worker.commands.outlook import keyed

            with contextlib.suppress(Unreachable), reaching():
                _, said = asyncio.run(keyed(found, redis_url()))
        report.check(found, now(), said)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for other programs.")
def rooms(as_json: bool) -> None:  # noqa: FBT001 - click calls it
    """List every room that exists, cohort by cohort, as it should be now.

    With ids, members, phase, settings, the next change, and the line that shows the room on your
    own site.
    """
    import asyncio

    from worker import rules as rules_file
    from worker.commands import report

    with told():
        rules = rules_file.load(rules_path())
        asyncio.run(report.rooms(rules, redis_url(), now(), as_json=as_json))


@main.group(invoke_without_command=True)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=4000,
    show_default=True,
    help="Port to listen on.",
)
@click.option(
    "--webhook",
    default="http://127.0.0.1:8000/webhooks/whop",
    show_default=True,
    help="Where deliveries go.",
)
@click.option(
    "--data", type=click.Path(path_type=Path, dir_okay=False), help="File that keeps its state."
)
@click.option(
    "--retry-clock",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="How many times sooner than Whop it tries a failed delivery again: at 600 the twelve "
    "tries take 7 minutes, not 71 hours.",
)
@click.pass_context
def sandbox(
    ctx: click.Context, port: int, webhook: str, data: Path | None, retry_clock: float
) -> None:
    """Run a local Whop: the API, signed webhooks, and a page with Buy and Cancel buttons.

    It sells the products that the rules file names. It accepts the key in WHOP_API_KEY and signs
    with the secret in WHOP_WEBHOOK_SECRET. `PATCH /sandbox/faults` makes it slow, failing or
    forgetful, or turns its retry clock; `GET /sandbox/faults` shows the switches.
    """
    if ctx.invoked_subcommand is None:
        _serve_sandbox(port, webhook, data, retry_clock)


def _serve_sandbox(port: int, webhook: str, data: Path | None, retry_clock: float) -> None:
    import asyncio
    import signal

    from webhooks import log
    from worker import rules
    from worker.sandbox import main as local_whop
    from worker.sandbox.keeper import Unreadable

    log.configure(ENVIRON.get("USHER_LOG"))
    key = ENVIRON.get("WHOP_API_KEY") or "apik_local"
    secret = ENVIRON.get("WHOP_WEBHOOK_SECRET") or "ws_local"

    async def serve() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, stop.set)
        await local_whop.serve(
            account=found.account,
            products=_products(found.rooms),
            api_key=key,
            port=port,
            data=data,
            webhook_url=webhook,
            webhook_secret=secret.partition(",")[0],
            retry_clock=retry_clock,
            ready=lambda url: _say_where(url, key, secret),
            stop=stop,
        )

    try:
        found = rules.load(rules_path())
        asyncio.run(serve())
    except (rules.RulesError, Unreadable) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"cannot listen on port {port}: {error.strerror}") from error


def _products(rooms: Iterable[Any]) -> list[Any]:
    """Return what the local Whop sells: courses and tickets once, all else by the month."""
    from worker.sandbox.state import SeedProduct

    kinds: dict[str, str] = {}
    for room in rooms:
        once = room.cohort or room.schedule.eventful
        kinds |= dict.fromkeys(room.products, "one_time" if once else "renewal")
    return [
        SeedProduct(
            id=id_, title=id_.removeprefix("prod_").replace("_", " ").title(), plan_type=kind
        )
        for id_, kind in kinds.items()
    ]


def _say_where(url: str, key: str, secret: str) -> None:
    """Say how to use the local Whop; a key or secret that was handed in is nobody's to print."""
    click.echo(f"A local Whop listens at {url}. Open it in a browser, or talk to it:", err=True)
    click.echo(f"  export WHOP_API_URL={url}/api/v1", err=True)
    if "WHOP_API_KEY" not in ENVIRON:
        click.echo(f"  export WHOP_API_KEY={key}", err=True)
    if "WHOP_WEBHOOK_SECRET" not in ENVIRON:
        click.echo(f"  export WHOP_WEBHOOK_SECRET={secret}", err=True)


@sandbox.command()
@click.argument("product")
@click.option("--user", required=True, help="A user name (made when it is new) or a user_ id.")
@click.option("--whop", default=LOCAL_WHOP, show_default=True, help="The local Whop.")
def buy(product: str, user: str, whop: str) -> None:
    """Buy PRODUCT as a user, as a checkout on Whop would."""
    sold = _ask(whop, "buy", {"product_id": product, "user": user})
    click.echo(f"{sold['username']} ({sold['user_id']}) bought {product}.")
    click.echo(f"membership {sold['membership_id']} is {sold['status']}")


@sandbox.command()
@click.argument("membership")
@click.option("--at-period-end", is_flag=True, help="Keep access until the period ends.")
@click.option("--whop", default=LOCAL_WHOP, show_default=True, help="The local Whop.")
def cancel(membership: str, at_period_end: bool, whop: str) -> None:  # noqa: FBT001 - click calls it
    """Cancel MEMBERSHIP, at once or at the period's end."""
    body = {"membership_id": membership, "at_period_end": at_period_end}
    held = _ask(whop, "cancel", body)
    click.echo(f"membership {held['membership_id']} is {held['status']}")


@sandbox.command()
@click.argument("link")
@click.option("--user", required=True, help="A user name or a user_ id.")
@click.option("--whop", default=LOCAL_WHOP, show_default=True, help="The local Whop.")
def join(link: str, user: str, whop: str) -> None:
    """Follow LINK, a plan's purchase_url (or its plan_ id), as a user, and take what it gives."""
    sold = _ask(whop, "join", {"plan_id": link.rstrip("/").rpartition("/")[2], "user": user})
    click.echo(f"{sold['username']} ({sold['user_id']}) followed the link.")
    click.echo(f"membership {sold['membership_id']} is {sold['status']}")


def _ask(whop: str, what: str, body: dict[str, Any]) -> dict[str, Any]:
    """Call the local Whop's controls."""
    import httpx

    try:
        answer = httpx.post(f"{whop}/sandbox/{what}", json=body, timeout=10)
    except httpx.HTTPError as error:
        raise click.ClickException(
            f"no local Whop answers at {whop} ({error}); start one with `usher up` or "
            "`usher sandbox`, or name it with --whop"
        ) from error
    if answer.is_error:
        raise click.ClickException(str(answer.json()["error"]["message"]))
    result: dict[str, Any] = answer.json()
    return result


for command in (*about_rooms.COMMANDS, *about_members.COMMANDS, brake, seat):
    main.add_command(command)


if __name__ == "__main__":
    sys.exit(main())
