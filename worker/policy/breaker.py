"""The law of the breaker: when jobs wait because Whop is down, and how they go on. Pure.

Nearly all calls of the last half minute must have failed, or, where there are not so many, a few
in a row for longer than that without an answer to anybody. Then the probe must fail as well:
questions that concern no member and no room. So whatever always fails by itself, be it one
operation or one member, opens nothing; it costs a probe now and then. While it is open only the
probe calls Whop; when that is answered, jobs go on, few at first and twice as many every ten
seconds.

A refusal is an answer, and so is a used-up quota (429): only what says that Whop is out of order,
or no answer at all, counts as a failure.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import takewhile
from typing import Final

from worker.policy.retry import LONGEST

WINDOW: Final = timedelta(seconds=30)
ENOUGH: Final = 10
"""Calls in the window that must have been made, before anything is made of them."""

NEARLY_ALL: Final = 0.9
FEW: Final = 3
"""Calls in a row that must have failed for longer than the window: a lone job waits in between."""

SILENCE: Final = 3 * LONGEST
"""For how long calls that nobody answered are remembered: over the pauses of a lone job."""

HALF: Final = 0.5
"""The share of failures that is doubtful while Whop has only just come back."""

PROBE_EVERY: Final = timedelta(seconds=10)
RAMP: Final = timedelta(seconds=60)
"""How long jobs go on gently after Whop came back."""

AT_FIRST: Final = 5
DOUBLES: Final = timedelta(seconds=10)
KEPT: Final = 20
"""Outages that are remembered: more than fall into the time for which a job is tried."""


class Phase(StrEnum):
    """What jobs may do."""

    CLOSED = "closed"
    OPEN = "open"
    RAMPING = "ramping"


@dataclass(frozen=True, slots=True)
class Heard:
    """So many calls that ended at an instant, and how many of them failed."""

    at: datetime
    calls: int
    failed: int


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which Whop was down; `ended` is None while it lasts."""

    began: datetime
    ended: datetime | None = None


@dataclass(frozen=True, slots=True)
class State:
    """What the workers share: the latest outages, the last of them last, and the last probe."""

    outages: tuple[Outage, ...] = ()
    probed: datetime | None = None


def phase(state: State, now: datetime) -> Phase:
    """Return what jobs may do at an instant."""
    if not state.outages:
        return Phase.CLOSED
    ended = state.outages[-1].ended
    if ended is None:
        return Phase.OPEN
    return Phase.RAMPING if timedelta(0) <= now - ended < RAMP else Phase.CLOSED


def wants_probe(state: State, heard: Iterable[Heard], now: datetime) -> bool:
    """Say whether somebody should ask Whop whether it is there."""
    if state.probed is not None and timedelta(0) <= now - state.probed < PROBE_EVERY:
        return False
    match phase(state, now):
        case Phase.OPEN:
            return True
        case Phase.RAMPING:
            return _doubtful(heard, state.outages[-1].ended or now, AT_FIRST, HALF)
        case Phase.CLOSED:
            known = list(heard)
            return _doubtful(known, now - WINDOW, ENOUGH, NEARLY_ALL) or _silent(known)


def _doubtful(heard: Iterable[Heard], since: datetime, enough: int, share: float) -> bool:
    late = [one for one in heard if one.at > since]
    calls, failed = sum(one.calls for one in late), sum(one.failed for one in late)
    return calls >= enough and failed >= share * calls


def _silent(heard: Iterable[Heard]) -> bool:
    row = _unanswered(heard)
    return sum(one.calls for one in row) >= FEW and row[0].at - row[-1].at > WINDOW


def unanswered_since(heard: Iterable[Heard]) -> datetime | None:
    """Return since when nobody's calls have been answered; None where the last ones were."""
    row = _unanswered(heard)
    return row[-1].at if row else None


def _unanswered(heard: Iterable[Heard]) -> list[Heard]:
    """Return what was heard since the last answer to anybody, the latest first."""
    latest_first = sorted(heard, key=lambda one: one.at, reverse=True)
    return list(takewhile(lambda one: one.failed == one.calls, latest_first))


def probed(state: State, now: datetime, *, answered: bool, silent: datetime | None = None) -> State:
    """Return the state after a probe; `silent` says since when no call was answered before it.

    An outage that it finds began then: what was tried in vain meanwhile is not to pay for it.
    """
    before, last = state.outages[:-1], state.outages[-1] if state.outages else None
    match phase(state, now), answered:
        case Phase.OPEN, True if last:
            outages = (*before, replace(last, ended=now))
        case Phase.RAMPING, False if last:  # it was not over yet
            outages = (*before, replace(last, ended=None))
        case Phase.CLOSED, False:
            began = min(silent or now, now)
            if last and last.ended:
                began = max(began, last.ended)
            outages = (*state.outages, Outage(began))[-KEPT:]
        case _:
            outages = state.outages
    return State(outages, now)


def may_have_begun(state: State, now: datetime) -> float:
    """Return how many jobs, of all workers together, may have begun since Whop came back."""
    match phase(state, now):
        case Phase.CLOSED:
            return math.inf
        case Phase.OPEN:
            return 0
        case Phase.RAMPING:
            since = now - (state.outages[-1].ended or now)
            return math.floor(AT_FIRST * 2 ** (since / DOUBLES))


def time_lost(state: State, since: datetime, now: datetime) -> timedelta:
    """Return how much of a stretch of time Whop was down: nobody's patience runs out in it."""
    lost = timedelta(0)
    for outage in state.outages:
        begins, ends = max(outage.began, since), min(outage.ended or now, now)
        lost += max(ends - begins, timedelta(0))
    return lost
