"""`usher brake`: who would be put out without an explanation, and a person's word on it."""

import asyncio
from typing import TYPE_CHECKING

import click

from worker.clock import now
from worker.commands.edge import person, redis_url, rules_path, told

if TYPE_CHECKING:
    from worker.admin.brakes import RoomBrake
    from worker.policy.brake import Word

_why = click.option("--why", required=True, help="The reason, for whoever wonders later.")
_by = click.option("--by", default=None, help="Who says so.  [default: your user name]")
_user = click.option("--user", "users", multiple=True, help="Only this member (user_...).")


@click.group()
def brake() -> None:
    """Who would be put out without an explanation: show them, release them, or refuse.

    Usher ends no more than five seats of a room, and a twentieth of its members, in an hour where
    no delivery and no date explains each. Then it ends none and waits for a person's word.
    """


@brake.command()
@click.argument("room", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for other programs.")
def show(room: str | None, as_json: bool) -> None:  # noqa: FBT001 - click calls it
    """Show who waits, in all rooms or in ROOM, and why they would be put out."""
    from worker import rules
    from worker.admin import brakes
    from worker.commands.delivery_report import print_json

    with told():
        found = asyncio.run(brakes.show(rules.load(rules_path()), redis_url(), room))
        if as_json:
            print_json(found)
            return
        for one in found:
            _print(one)
        if not any(one.held for one in found):
            click.echo("Nobody waits: nothing would be taken without an explanation.")


def _print(one: "RoomBrake") -> None:
    engaged = one.engaged
    state = "off"
    if engaged:
        state = f"ON since {engaged.since:%F %H:%M} UTC, {engaged.takes} of {engaged.members}"
    click.echo(f"{one.room}  the brake is {state}")
    for user, held in sorted(one.held.items()):
        said = f" ({held.word} by {held.by}: {held.reason})" if held.word else ""
        click.echo(f"  {user}  since {held.since:%F %H:%M} UTC: {held.why}{said}")
    if engaged:
        click.echo(f"  `usher brake release {one.room} --why ...` puts them out, and")
        click.echo(f"  `usher brake refuse {one.room} --why ...` leaves them in")


@brake.command()
@click.argument("room")
@_user
@_why
@_by
def release(room: str, users: tuple[str, ...], why: str, by: str | None) -> None:
    """Let those who wait in ROOM be put out, and go on."""
    from worker.policy.brake import Word

    _say(room, users, why, by, Word.RELEASED)


@brake.command()
@click.argument("room")
@_user
@_why
@_by
def refuse(room: str, users: tuple[str, ...], why: str, by: str | None) -> None:
    """Leave those who wait in ROOM where they are, until something explains their end."""
    from worker.policy.brake import Word

    _say(room, users, why, by, Word.REFUSED)


def _say(room: str, users: tuple[str, ...], why: str, by: str | None, word: "Word") -> None:
    from worker import rules
    from worker.admin import brakes
    from worker.words import counted

    with told():
        said = brakes.say(
            rules.load(rules_path()),
            redis_url(),
            room,
            word,
            by=person(by),
            why=why,
            now=now(),
            users=users,
        )
        meant = asyncio.run(said)
    click.echo(f"{room}: {counted(len(meant), 'member')} {word}.")
    for user in meant:
        click.echo(f"  {user}")
