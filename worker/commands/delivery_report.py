"""`usher deliveries`: what Whop told us, newest first, and what became of it."""

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from webhooks.events import Delivery
from worker.commands.deliveries import Filter, received, subject_of
from worker.commands.evidence import Echo, Evidence, NotFound, opened
from worker.rules import Rules
from worker.subjects import milliseconds
from worker.words import counted, local

ASKED = "asked"
"""Why a subject is due that a person wants looked at again."""


async def list_(
    rules: Rules,
    redis_url: str,
    wanted: Filter,
    *,
    limit: int,
    echo: Echo,
    as_json: bool = False,
) -> None:
    """Print the newest deliveries of those that are meant, with what became of each.

    Raises:
        Unreachable: Redis does not answer.
    """
    async with opened(rules, redis_url) as evidence:
        found = []
        async for delivery in evidence.deliveries.newest(wanted):
            found.append(delivery)
            if len(found) == limit:
                break
        states = await evidence.deliveries.states(found)
    if as_json:
        print_json([row(*pair) for pair in zip(found, states, strict=True)])
        return
    rows = [
        (
            local(received(one), rules.zone),
            one.id,
            state,
            one.type,
            subject_of(one),
            one.status or "",
        )
        for one, state in zip(found, states, strict=True)
    ]
    for line in columns(("received", "id", "state", "type", "subject", "told"), rows):
        echo(line)
    more = "" if len(found) < limit else "; --limit shows more"
    echo(f"{counted(len(found), 'delivery', 'deliveries')}{more}.")


async def show(
    rules: Rules, redis_url: str, id_: str, *, echo: Echo, as_json: bool = False
) -> None:
    """Print all that is kept of a delivery, and each look that was for it.

    Raises:
        NotFound: it is not kept.
        Unreachable: Redis does not answer.
    """
    async with opened(rules, redis_url) as evidence:
        (delivery,) = await _named(evidence, [id_])
        facts = row(delivery, *await evidence.deliveries.states([delivery]))
        steps = await evidence.store.steps(subject_of(delivery))
        passed_on = [s for s in steps if s.what == "subject.passed_on" and id_ in s.deliveries]
        subjects = [subject_of(delivery), *(f"member:{step.id}" for step in passed_on)]
        looks = [
            {"subject": subject, **msgspec.to_builtins(look)}
            for subject in subjects
            for look in await evidence.subjects.looks(subject)
            if id_ in look.took
        ]
    if as_json:
        print_json({**facts, "looks": looks})
        return
    for name, value in facts.items():
        if value is not None:
            shown = local(value, rules.zone) if isinstance(value, datetime) else value
            echo(f"{name:<12}{shown}")
    for look in looks:
        why = f": {look['why']}" if "why" in look else ""
        tried = f"{look['subject']}, try {look['tries']}"
        at = local(datetime.fromisoformat(look["at"]), rules.zone)
        echo(f"{'look':<12}{at}  {tried}: {look['outcome']}{why}")
    if not looks:
        echo(f"{'look':<12}nobody has looked because of it yet, or that is too long ago")


async def retry(
    rules: Rules, redis_url: str, ids: Sequence[str], *, now: datetime, echo: Echo
) -> None:
    """Have the subjects of deliveries looked at again, whether or not the deliveries are news.

    A look compares and applies the difference, so that one too many does nothing.

    Raises:
        NotFound: one is not kept; then nothing is done.
        Unreachable: Redis does not answer.
    """
    async with opened(rules, redis_url) as evidence:
        for delivery in await _named(evidence, ids):
            subject = subject_of(delivery)
            for reason in (delivery.id, ASKED):
                await evidence.inbox.mark(subject, reason, milliseconds(now))
            echo(f"{delivery.id}: {subject} will be looked at again")


async def _named(evidence: Evidence, ids: Sequence[str]) -> list[Delivery]:
    found = await evidence.deliveries.get(ids)
    missing = sorted(set(ids) - {one.id for one in found})
    if missing:
        raise NotFound(
            f"{', '.join(missing)}: no such delivery is kept. It never arrived (`usher catch-up` "
            "asks Whop for those), is older than the retention, or its person was forgotten"
        )
    return found


def row(delivery: Delivery, state: str) -> dict[str, Any]:
    """Return a delivery as `--json` shows it, with every field, and instants in UTC."""
    fields = {name: getattr(delivery, name) for name in Delivery.__struct_fields__}
    return {**fields, "received": received(delivery), "state": state}


def columns(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as lines, nothing of it cut short; no lines where there are no rows."""
    if not rows:
        return []
    table = [names, *rows]
    widths = [max(len(row[n]) for row in table) for n in range(len(names))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def print_json(document: Any) -> None:
    """Print a document for other programs."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    sys.stdout.buffer.flush()
