"""`usher verify`: show what is not as it should be, and put right what can be.

To repair is to converge: the same job, under the same locks, run in this process, so that it is
safe beside workers that run.
"""

import asyncio
import contextlib
import getpass
import itertools
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, BinaryIO, Final

import httpx
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from webhooks.inbox import connect
from worker import jobs, main
from worker.admin.reach import reaching
from worker.clock import now
from worker.policy.brake import too_many
from worker.policy.differences import Cure, Difference, Kind
from worker.policy.rooms import split
from worker.proof.inspection import Findings, inspect
from worker.proof.recall import recall
from worker.reasons import FIRST_PURCHASE, VERIFY
from worker.renames import as_it_looks
from worker.rules import Rules
from worker.subjects import milliseconds
from worker.supervisor import end
from worker.tools import Tools
from worker.whop.errors import WhopError
from worker.words import counted

AT_ONCE: Final = 20
PATIENCE: Final = 60.0
"""Seconds without any progress after which a repair stops waiting: for a worker that holds
something, or for Whop."""

SAID: Final = {
    Kind.SHUT_OUT: "should be in, and is not",
    Kind.LET_IN: "is in, and should not be",
    Kind.UNDECIDED: "cannot be decided",
    Kind.UNRECORDED: "is in, and Usher forgot it",
    Kind.GONE: "is recorded as in, and is out",
    Kind.NOT_OURS: "is in by no purchase",
    Kind.STRANGER: "is in by no purchase",
    Kind.PAID_BACK: "was paid back, and runs on",
    Kind.KEPT: "keeps a seat of no use",
    Kind.SEATS_LOST: "seats are not counted",
    Kind.OVERSOLD: "more tickets than seats",
    Kind.OVERFULL: "more members than seats",
    Kind.TICKET: "ticket counted wrongly",
    Kind.ROOM_UNRECORDED: "exists, and Usher forgot it",
    Kind.ROOM_MISSING: "should exist, and does not",
    Kind.ROOM_GONE: "was deleted on Whop",
    Kind.DETACHED: "not open to its buyers",
    Kind.MISATTACHED: "open to others",
    Kind.DOUBLED: "there are two of it",
    Kind.KEY_UNCLEAR: "has another key",
    Kind.RENAMED: "is called otherwise",
    Kind.PUT_AWAY: "its product is archived",
    Kind.CHANNEL: "is set otherwise",
}
TAKEN: Final = (Kind.LET_IN, Kind.STRANGER, Kind.PAID_BACK)
"""What a repair takes something from somebody for."""

IN_ORDER: Final = "everything is as it should be"
LEFT_OUT: Final = "Look again in two minutes; `usher dead` shows what failed"
WIDE: Final = 240
SHOWN: Final = 200
"""Rows of the table."""

REMEDIES: Final = {
    Cure.CONVERGE: "look again and put it right",
    Cure.RECALL: "read it back from Whop",
    Cure.PERSON: "yours to decide",
}


class VerifyError(Exception):
    """Nothing can be said: no such room, no id of a person, or Whop does not tell."""


async def verify(
    settings: main.Settings,
    *,
    repair: bool = False,
    room: str | None = None,
    user: str | None = None,
    take: int | None = None,
    as_json: bool = False,
    clock: Callable[[], datetime] = now,
    console: Console | None = None,
    out: BinaryIO | None = None,
) -> int:
    """Compare everything with what it should be; returns 1 where something is not, or else 0.

    Raises:
        VerifyError: nothing can be said.
        Unreachable: Redis does not answer.
    """
    if room and not settings.rules.room(split(room)[0]):
        known = ", ".join(one.key for one in settings.rules.rooms)
        raise VerifyError(f"no room is called {room!r}; there are {known}")
    if user and not user.startswith("user_"):
        raise VerifyError(f"{user}: expected Whop's id of a person (user_...)")
    console = console or _console(stderr=as_json)
    try:
        async with _working(settings, clock) as tools:
            before = await inspect(tools, room=room, user=user)
            _show(console, before, settings.rules, repair=repair)
            after, unmended = before, set[str]()
            if repair and any(one.cure is not Cure.PERSON for one in before.differences):
                allowed = await _not_braked(tools, before.differences, take, console)
                await mend(tools, allowed, console)
                after = await inspect(tools, room=room, user=user)
                wanted = {one.subject for one in before.differences} & after.in_work
                unmended = set(await tools.subjects.failing(sorted(wanted))) if wanted else set()
                _show_after(console, after, settings.rules)
                for subject in sorted(unmended):
                    console.print(f"{subject} could not be put right yet; it is tried again.")
    except WhopError as error:
        raise VerifyError(
            f"Whop does not tell all of it, so nothing can be said: {error}"
        ) from error
    if as_json:
        document = msgspec.json.encode(
            _document(settings.rules, before, after, unmended, repair=repair)
        )
        (out or sys.stdout.buffer).write(msgspec.json.format(document) + b"\n")
    return 1 if after.differences or unmended else 0


@contextlib.asynccontextmanager
async def _working(settings: main.Settings, clock: Callable[[], datetime]) -> AsyncIterator[Tools]:
    """Have all that a worker's jobs have, and renew what is held."""
    redis = connect(settings.redis_url)
    http = httpx.AsyncClient(
        base_url=settings.api_url,
        headers={"Authorization": f"Bearer {settings.api_key}", "User-Agent": "usher"},
    )
    try:
        async with http:
            tools = await as_it_looks(main.assemble(settings, redis, http, clock))
            renewing = asyncio.create_task(tools.leases.keep())
            try:
                with reaching():
                    yield tools
            finally:
                await end([renewing])
    finally:
        await redis.aclose()


# --- putting it right


async def _not_braked(
    tools: Tools, differences: Sequence[Difference], take: int | None, console: Console
) -> list[Difference]:
    """Return what may be put right: not the end of many seats that nothing explains.

    `take` is the number of those that a person has seen; it must be this very number.
    """
    out: dict[str, list[Difference]] = {}
    for one in differences:
        if one.kind in TAKEN and not one.explained:
            out.setdefault(split(one.room or "")[0], []).append(one)
    many = {
        room: ends
        for room, ends in out.items()
        if too_many(len(ends), await tools.store.count_members(room))
    }
    total = sum(len(ends) for ends in many.values())
    for room, ends in many.items():
        wanted = {one.user: one.why for one in ends if one.user}
        if take == total:
            why = f"usher verify --repair --take {take}"
            await tools.brake.allow(room, wanted, by=_who(), why=why)
        else:
            await tools.brake.hold_all(room, wanted, await tools.store.count_members(room))
    if not many or take == total:
        return list(differences)
    said = f"{take} were allowed and there are {total}" if take else "nobody has allowed it"
    console.print(
        f"[bold]The brake is on:[/] nothing explains why {total} would be put out of "
        f"{', '.join(sorted(many))}, and {said}. If they should be, look at them above and run "
        f"`usher verify --repair --take {total}`; the rest is put right now."
    )
    braked = {id(one) for ends in many.values() for one in ends}
    return [one for one in differences if id(one) not in braked]


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, whose user has no name
        return "usher verify --take"


async def mend(tools: Tools, differences: Sequence[Difference], console: Console) -> None:
    """Put right what no person must decide: what was forgotten first, then rooms, then members."""
    forgotten = {split(one.room or "")[0] for one in differences if one.cure is Cure.RECALL}
    if forgotten:
        await tools.store.doubt(sorted(forgotten))
        await recall(tools)
    now = milliseconds(tools.clock())
    to_do = [one for one in differences if one.cure is Cure.CONVERGE]
    reasons = [(one.subject, VERIFY) for one in to_do]
    reasons += [(one.subject, FIRST_PURCHASE) for one in to_do if one.kind is Kind.ROOM_MISSING]
    await asyncio.gather(*(tools.inbox.mark(subject, why, now) for subject, why in reasons))
    wanted = set(await tools.subjects.due_by(tools.clock()))
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("putting it right", total=len(wanted))
        await _settle(tools, wanted, lambda left: bar.update(task, completed=len(wanted) - left))


async def _settle(tools: Tools, wanted: set[str], told: Callable[[int], None]) -> None:
    """Run jobs until none of these subjects is due any more, nor any room or channel."""
    loop = asyncio.get_running_loop()
    left, deadline = len(wanted) + 1, loop.time() + PATIENCE
    while True:
        due = [s for s in await tools.subjects.due_by(tools.clock()) if s in wanted or _of_room(s)]
        if len(due) != left:
            left, deadline = len(due), loop.time() + PATIENCE
        if not due or loop.time() > deadline:
            return
        rooms = [subject for subject in due if _of_room(subject)]
        waiting = sum(1 for subject in due if subject in wanted)
        for some in _batches(rooms or due):
            told(waiting)
            await _run(tools, some)
            waiting -= sum(1 for subject in some if subject in wanted)
        told(waiting)
        await asyncio.sleep(0.1)  # a worker that holds the rest needs its time, too


async def _run(tools: Tools, subjects: Sequence[str]) -> None:
    """Run some jobs at once; one that lost its lease is another worker's by now."""
    runs = [jobs.run(tools, subject) for subject in subjects]
    for result in await asyncio.gather(*runs, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


def _of_room(subject: str) -> bool:
    return subject.startswith(("room:", "channel:"))


def _batches(subjects: Sequence[str]) -> Iterator[list[str]]:
    one = iter(subjects)
    while batch := list(itertools.islice(one, AT_ONCE)):
        yield batch


# --- showing it


def _console(*, stderr: bool) -> Console:
    """Return where people read; in a file or a pipe a table is as wide as it likes."""
    console = Console(highlight=False, stderr=stderr)
    return console if console.is_terminal else Console(highlight=False, stderr=stderr, width=WIDE)


def _show(console: Console, findings: Findings, rules: Rules, *, repair: bool) -> None:
    if findings.differences:
        console.print(_table(findings, repair=repair))
    left_out = len(findings.differences) - SHOWN
    if left_out > 0:
        console.print(f"... and {left_out} more, which --json names")
    console.print(_summary(findings, rules, repair=repair))


def _show_after(console: Console, findings: Findings, rules: Rules) -> None:
    console.print("\n[bold]After the repair[/]")
    _show(console, findings, rules, repair=False)


def _table(findings: Findings, *, repair: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("what", "room", "who", "why", "will do" if repair else "remedy"):
        table.add_column(name, overflow="fold", no_wrap=name in {"room", "who"})
    for one in findings.differences[:SHOWN]:
        who = one.user or one.id or ""
        table.add_row(
            SAID[one.kind], escape(one.room or ""), who, escape(one.why), REMEDIES[one.cure]
        )
    return table


def _summary(findings: Findings, rules: Rules, *, repair: bool) -> str:
    seen = (
        counted(findings.members, "member"),
        counted(findings.memberships, "membership"),
        counted(findings.rooms, "room"),
    )
    looked = f"{', '.join(seen)} of {rules.account}"
    work = len(findings.in_work)
    busy = f"; {work} left out: changed, or tried, a moment ago. {LEFT_OUT}" if work else ""
    if not (findings.differences or findings.rooms or findings.members or work):
        return f"{looked}: nobody and nothing to look at; or is it another id?"
    if not findings.differences:
        return f"{looked}: {f'nothing else is wrong{busy}' if work else IN_ORDER}."
    kinds = ", ".join(f"{n} {kind}" for kind, n in findings.counts.items())
    people = sum(1 for one in findings.differences if one.cure is Cure.PERSON)
    rest = len(findings.differences) - people
    how = f"{rest} will be put right now" if repair else f"`usher verify --repair` mends {rest}"
    parts = [how] if rest else []
    parts += [f"{people} for a person to decide"] if people else []
    count = counted(len(findings.differences), "difference")
    return f"{looked}: {count} ({kinds}){busy}. {'; '.join(parts)}."


def _document(
    rules: Rules, before: Findings, after: Findings, unmended: set[str], *, repair: bool
) -> dict[str, Any]:
    """Return what `--json` prints; keys are added, and never change their meaning."""
    return {
        "account": rules.account,
        "at": before.at,
        "looked_at": {
            "members": after.members,
            "memberships": after.memberships,
            "rooms": after.rooms,
        },
        "in_order": not (after.differences or unmended),
        "counts": after.counts,
        "differences": [asdict(one) for one in after.differences],
        "in_work": sorted(after.in_work),
        "repaired": [
            asdict(one)
            for one in before.differences
            if one not in after.differences and one.subject not in unmended
        ]
        if repair
        else [],
    }
