"""`usher dead`: what failed for good, and a person's word on it: try again, or let it be.

A retry is the same look as any other and therefore safe. What is discarded stays undone until news
of the subject comes; the trail keeps a note of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from worker.commands.delivery_report import columns, print_json
from worker.commands.evidence import Echo, Evidence, NotFound, opened
from worker.memory.trail import Step
from worker.rules import Rules
from worker.subjects import Death, milliseconds
from worker.words import local

RETRIED = "retried"
"""Why a subject is due that a person has tried again."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the dead are meant; what is not said leaves none out.

    `subjects` are their names (member:user_...), `kind` the first word of them, `reason` a part of
    why they failed. They died before `older` and after `newer`.
    """

    subjects: tuple[str, ...] = ()
    kind: str | None = None
    reason: str | None = None
    older: datetime | None = None
    newer: datetime | None = None
    everything: bool = False

    @property
    def said(self) -> bool:
        """Say whether anything was chosen at all."""
        narrowed = (self.kind, self.reason, self.older, self.newer)
        return bool(self.subjects or self.everything or any(narrowed))

    def admits(self, subject: str, death: Death) -> bool:
        """Say whether one of the dead is meant."""
        return (
            (not self.subjects or subject in self.subjects)
            and self.kind in (None, subject.partition(":")[0])
            and (self.reason or "").casefold() in death.reason.casefold()
            and (self.older is None or death.at <= self.older)
            and (self.newer is None or death.at >= self.newer)
        )


async def list_(
    rules: Rules, redis_url: str, choice: Choice, *, echo: Echo, as_json: bool = False
) -> None:
    """Print what failed for good, the newest last.

    Raises:
        Unreachable: Redis does not answer.
    """
    async with opened(rules, redis_url) as evidence:
        dead = await _chosen(evidence, choice)
    if as_json:
        print_json([_row(*pair) for pair in dead.items()])
        return
    rows = [
        (local(d.at, rules.zone), subject, str(d.tries), str(len(d.deliveries)), d.reason)
        for subject, d in dead.items()
    ]
    for line in columns(("died", "subject", "tries", "waiting", "reason"), rows):
        echo(line)
    echo(f"{len(dead)} failed for good." if dead else "Nothing has failed for good.")


async def show(
    rules: Rules, redis_url: str, subject: str, *, echo: Echo, as_json: bool = False
) -> None:
    """Print one of the dead with the deliveries that it was for, and each try that is known.

    Raises:
        NotFound: it is not among the dead.
        Unreachable: Redis does not answer.
    """
    async with opened(rules, redis_url) as evidence:
        ((_, death),) = (await _chosen(evidence, Choice((subject,)))).items()
        deliveries = await evidence.deliveries.get(death.deliveries)
        looks = await evidence.subjects.looks(subject)
    if as_json:
        told: Any = {"told": deliveries, "looks": looks}
        print_json({**_row(subject, death), **told})
        return
    since = local(death.first_try, rules.zone)
    echo(f"{subject} failed for good at {local(death.at, rules.zone)}: {death.reason}")
    echo(f"tries: {death.tries} since {since}")
    for one in deliveries:
        echo(f"  for {one.id}  {one.type}  {one.status or ''}".rstrip())
    known = {one.id for one in deliveries}
    for reason in death.deliveries:
        if reason not in known:
            echo(f"  for {reason}")
    for look in looks:
        echo(f"  {local(look.at, rules.zone)}  try {look.tries}: {look.why or look.outcome}")
    echo(f"next: mend the cause, then `usher dead retry {subject}`; or `usher dead discard`")


async def retry(rules: Rules, redis_url: str, choice: Choice, *, now: datetime, echo: Echo) -> int:
    """Have what failed for good tried again, as from the beginning; returns how many.

    Raises:
        NotFound: nothing was chosen, or a subject is not among the dead.
        Unreachable: Redis does not answer.
    """
    async with opened(rules, redis_url) as evidence:
        dead = await _chosen(evidence, _said(choice))
        for subject in dead:
            await evidence.inbox.mark(subject, RETRIED, milliseconds(now))
            echo(f"{subject}: will be tried again")
    echo(f"{len(dead)} will be tried again; `usher dead` shows what fails anew.")
    return len(dead)


async def discard(
    rules: Rules,
    redis_url: str,
    choice: Choice,
    *,
    who: str,
    why: str,
    now: datetime,
    echo: Echo,
) -> int:
    """Drop what failed for good, with a note in its trail; returns how many.

    Raises:
        NotFound: nothing was chosen, or a subject is not among the dead.
        Unreachable: Redis does not answer.
    """
    gone = 0
    async with opened(rules, redis_url) as evidence:
        for subject, death in (await _chosen(evidence, _said(choice))).items():
            if not await evidence.subjects.discard(subject, death):
                echo(f"{subject}: it is being tried again just now; left alone")
                continue
            gone += 1
            said = f"{who} said so" + (f": {why}" if why else "")
            note = f"{said}; it had failed with: {death.reason}"
            step = Step(now, "job.discarded", note, deliveries=death.deliveries)
            await evidence.store.trail(subject, [step])
            echo(f"{subject}: discarded")
    echo(f"{gone} discarded; news of them is dealt with as ever.")
    return gone


async def _chosen(evidence: Evidence, choice: Choice) -> Mapping[str, Death]:
    dead = await evidence.subjects.deaths()
    missing = [subject for subject in choice.subjects if subject not in dead]
    if missing:
        raise NotFound(
            f"{', '.join(missing)}: not among what failed for good; `usher dead` lists it"
        )
    in_order = sorted(dead.items(), key=lambda pair: pair[1].at)
    return {subject: death for subject, death in in_order if choice.admits(subject, death)}


def _said(choice: Choice) -> Choice:
    if not choice.said:
        raise NotFound(
            "name subjects, or narrow with --type, --reason, --older or --newer, or say --all"
        )
    return choice


def _row(subject: str, death: Death) -> dict[str, Any]:
    fields: Sequence[str] = Death.__struct_fields__
    return {"subject": subject, **{name: getattr(death, name) for name in fields}}
