"""How a busy chat slows itself down, and gets its pace back: the law, on what was counted.

The law says what may happen at an instant, given the last ten minutes; it never asks whether an
earlier look was missed. Its reasons stand in docs/decisions/0012-a-busy-chat.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Final

from worker.policy.settings import Settings

WINDOW: Final = timedelta(minutes=1)
"""What voices are counted over, and the least time between two steps up but for a raid."""

CALM: Final = 5
"""Windows in a row that must be quiet before a step down, and that a change stands before one."""

SILENCE: Final = 10
"""Windows in a row without any message after which the room goes straight back to its base."""

MEMBERS: Final = 5
"""The fewest members who can make a chat busy; a surge takes twice as many, a raid four times."""

SURGE: Final = 2
"""Times `busy` from which the room takes two steps at once."""

RAID: Final = 4
"""Times `busy` from which it goes to the ceiling at once, whenever its last change was."""

REST: Final = timedelta(seconds=5)
"""How long the alarm is silent after a look: a load right at the threshold is no storm of looks."""

_HOUR: Final = timedelta(hours=1)
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What a room's rules say of a busy chat: `[rooms.X.slow]`.

    From `busy` messages a minute on the room gets slower, below `quiet`, which is less, faster
    again; of one member's messages, one in ten seconds counts. `steps` are the cooldowns, in
    seconds and rising: the first is the floor, the last the ceiling. `changes` are the most in any
    hour, both ways together. `say` is posted at a change.
    """

    busy: int
    quiet: int
    steps: tuple[int, ...]
    changes: int = 6
    say: str | None = None


@dataclass(frozen=True, slots=True)
class Minute:
    """A minute of a chat.

    `voices` are the members who wrote, each counted once in ten seconds; `senders` the same members
    counted once; `messages` all that they wrote, for people to read: the law does not ask.
    """

    voices: int = 0
    senders: int = 0
    messages: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """The last ten minutes of a chat, the newest first; what is missing at the end was silent."""

    minutes: tuple[Minute, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """Where the controller stands.

    `level` is the number of steps taken, 0 for the base. `changed` are the changes of the last
    hour, the newest last; `raised` is when the level last rose.
    """

    level: int = 0
    changed: tuple[datetime, ...] = ()
    raised: datetime | None = None


@dataclass(frozen=True, slots=True)
class Alarm:
    """When a worker wants to be woken: at `voices` in a window, not before `since`.

    Nor before there are so many senders that `share` for each of them makes as much.
    """

    voices: int
    share: float
    since: datetime


def load(pace: Pace, minute: Minute) -> float:
    """Return how busy a minute was: its voices, or fewer where they are of few members."""
    return min(minute.voices, minute.senders * pace.busy / MEMBERS)


def step(
    pace: Pace, state: State, reading: Reading, now: datetime
) -> tuple[State, datetime | None]:
    """Return the state from now on, and when to look again if no alarm goes off before.

    That is None at the base: from there only an alarm leads on.
    """
    state = _current(pace, state, now)
    level = _level(pace, state, reading, now)
    if level != state.level:
        raised = now if level > state.level else state.raised
        state = State(level, (*state.changed, now), raised)
    return state, _look_again(pace, state, reading, now)


def settings(pace: Pace, state: State) -> Settings:
    """Return what a busy chat adds to its room's plan; nothing at the base."""
    seconds = cooldown(pace, state)
    return Settings(user_posts_cooldown_seconds=seconds) if seconds else Settings()


def cooldown(pace: Pace, state: State) -> int:
    """Return the seconds that a member waits between two messages; 0 at the base."""
    level = min(state.level, len(pace.steps))
    return pace.steps[level - 1] if level else 0


def alarm(pace: Pace, state: State, now: datetime) -> Alarm | None:
    """Return what should wake a worker after a look now; None at the ceiling: nothing is above."""
    state = _current(pace, state, now)
    if state.level == len(pace.steps):
        return None
    times = 1 if now >= _settled(state) else RAID
    since = max(now + REST, _allowed(pace, state, spare=0))
    return Alarm(times * pace.busy, pace.busy / MEMBERS, since)


def _current(pace: Pace, state: State, now: datetime) -> State:
    """Return the state without what is over; rules may have fewer steps now.

    Of a change that lies ahead a clock was wrong: it counts as made now, and does not bind us for
    longer than an hour.
    """
    changed = tuple(min(at, now) for at in state.changed if now - at < _HOUR)
    raised = min(state.raised, now) if state.raised else None
    return State(min(state.level, len(pace.steps)), changed, raised)


def _level(pace: Pace, state: State, reading: Reading, now: datetime) -> int:
    busy = load(pace, reading.minutes[0]) if reading.minutes else 0.0
    if busy >= pace.busy and state.level < len(pace.steps):
        return _up(pace, state, busy, now)
    if state.level and now >= _allowed(pace, state, spare=1):
        return _down(pace, state, reading, now)
    return state.level


def _up(pace: Pace, state: State, busy: float, now: datetime) -> int:
    raid = busy >= RAID * pace.busy
    if now < _allowed(pace, state, spare=0) or (now < _settled(state) and not raid):
        return state.level
    if raid:
        return len(pace.steps)
    return min(len(pace.steps), state.level + (2 if busy >= SURGE * pace.busy else 1))


def _down(pace: Pace, state: State, reading: Reading, now: datetime) -> int:
    if _silent(reading) >= SILENCE:
        return 0
    ripe = _calm(pace, reading) >= CALM and now >= _last(state) + CALM * WINDOW
    return state.level - 1 if ripe else state.level


def _look_again(pace: Pace, state: State, reading: Reading, now: datetime) -> datetime | None:
    """Return the first instant at which the room may get faster, or is heard with less alarm."""
    if not state.level:
        return None
    step_down = max(
        now + (CALM - _calm(pace, reading)) * WINDOW,
        _last(state) + CALM * WINDOW,
    )
    back_to_base = now + (SILENCE - _silent(reading)) * WINDOW
    down = max(min(step_down, back_to_base), _allowed(pace, state, spare=1))
    settled = _settled(state)
    return min(down, settled) if now < settled and state.level < len(pace.steps) else down


def _allowed(pace: Pace, state: State, *, spare: int) -> datetime:
    """Return from when on the hour has a change left, and `spare` ones besides if it has two."""
    most = max(1, pace.changes - spare)
    return state.changed[-most] + _HOUR if len(state.changed) >= most else _LONG_AGO


def _settled(state: State) -> datetime:
    """Return when the last step up shows in a whole window of messages."""
    return state.raised + WINDOW if state.raised else _LONG_AGO


def _last(state: State) -> datetime:
    return state.changed[-1] if state.changed else _LONG_AGO


def _calm(pace: Pace, reading: Reading) -> int:
    return _run(reading, lambda minute: load(pace, minute) < pace.quiet)


def _silent(reading: Reading) -> int:
    return _run(reading, lambda minute: not minute.voices)


def _run(reading: Reading, holds: Callable[[Minute], bool]) -> int:
    """Return for how many minutes, back from now, something holds."""
    heard = sum(1 for _ in takewhile(holds, reading.minutes))
    return SILENCE if heard == len(reading.minutes) else heard
