"""`usher seat`: who has a link and has not come, and what Whop refuses the account."""

import asyncio
import csv
import sys
from typing import TYPE_CHECKING

import click

from worker.clock import now
from worker.commands.edge import redis_url, rules_path, told

if TYPE_CHECKING:
    from worker.admin.seats import Waiting

COLUMNS = ("room", "cohort", "user", "since", "link", "told", "reminded")


@click.group()
def seat() -> None:
    """Seats in cohorts: who was offered one and has not come, and how they are given."""


@seat.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for other programs.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV for a spreadsheet.")
def waiting(as_json: bool, as_csv: bool) -> None:  # noqa: FBT001 - click calls it
    """Show everybody who has a link, or an invitation, and has not come.

    Whom nobody could write to needs the link from you. It is for this one buyer: who comes by it
    and has bought nothing is put out again, or reported, as `strangers` in the room says.
    """
    from worker import rules
    from worker.admin import seats
    from worker.commands.delivery_report import print_json

    with told():
        if as_json and as_csv:
            raise click.UsageError("--json or --csv, not both")
        found = asyncio.run(seats.waiting(rules.load(rules_path()), redis_url()))
        if as_json:
            print_json(found)
        elif as_csv:
            rows = csv.writer(sys.stdout)
            rows.writerow(COLUMNS)
            rows.writerows([getattr(one, name) for name in COLUMNS] for one in found)
        else:
            _print(found)


def _print(found: "list[Waiting]") -> None:
    if not found:
        click.echo("Nobody waits: everybody who was offered a seat has come.")
    for one in found:
        how = f"written to at {one.told:%F %H:%M} UTC" if one.told else "not written to"
        how = how if one.link else "invited by Whop"
        click.echo(f"{one.room}/{one.cohort}  {one.user}  since {one.since:%F %H:%M} UTC, {how}")
        if one.link:
            click.echo(f"  {one.link}")


@seat.command()
def probe() -> None:
    """Ask Whop again for what it refused this account, now and not after a day.

    Whop may make memberships, invite, open support chats and mark grants for one account and not
    for another. It is asked again with the next seat, and at once for everybody who has a link.
    """
    from worker import rules
    from worker.admin import seats
    from worker.words import counted

    with told():
        asked = asyncio.run(seats.probe(rules.load(rules_path()), redis_url(), now()))
    for way, one in asked.refused.items():
        name = seats.named(way)
        click.echo(f"{name}: refused since {one.since:%F %H:%M} UTC ({one.why}); it is asked again")
    if not asked.refused:
        click.echo("Whop has refused this account nothing.")
    if asked.members:
        click.echo(f"{counted(asked.members, 'member')} with a link: Whop is asked for them now.")
