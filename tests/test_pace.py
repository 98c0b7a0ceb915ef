"""The law of a busy chat, on traces of chats that are played to it second by ten seconds."""

import random
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from worker.policy.pace import (
    Alarm,
    Minute,
    Pace,
    Reading,
    State,
    alarm,
    cooldown,
    load,
    settings,
    step,
)
from worker.policy.settings import Settings

PACE = Pace(busy=30, quiet=12, steps=(10, 30, 60, 120), changes=6)
START = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
BUCKET = timedelta(seconds=10)

Ten = tuple[int, int]
"""Ten seconds of a trace: the voices in them, and how many members these are the same of."""


def per_minute(messages: float, people: int, minutes: float) -> list[Ten]:
    """Return a steady chat, its messages spread over the tens of seconds as evenly as can be."""
    tens = round(minutes * 6)
    marks = [round(n * messages / 6) for n in range(tens + 1)]
    return [(min(b - a, people), people if b > a else 0) for a, b in pairwise(marks)]


def together(one: list[Ten], other: list[Ten]) -> list[Ten]:
    """Return the chat in which both are, with members of their own."""
    return [(a + b, c + d) for (a, c), (b, d) in zip(one, other, strict=True)]


@dataclass
class Chat:
    """A chat whose worker looks only when it was told to, or when the alarm goes off."""

    pace: Pace = PACE
    state: State = field(default_factory=State)
    now: datetime = START
    heard: deque[Ten] = field(default_factory=lambda: deque([(0, 0)] * 60, maxlen=60))
    look: datetime | None = None
    alarm: Alarm | None = None
    looks: int = 0
    levels: list[int] = field(default_factory=list)
    changes: list[tuple[datetime, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.alarm = alarm(self.pace, self.state, self.now - HOUR)

    def play(self, trace: list[Ten]) -> "Chat":
        for ten in trace:
            self.heard.appendleft(ten)
            self.now += BUCKET
            if self._wakes() or (self.look and self.now >= self.look):
                self.glance()
            self.levels.append(self.state.level)
        return self

    def glance(self) -> None:
        before = self.state.level
        self.state, self.look = step(self.pace, self.state, self.reading, self.now)
        self.alarm = alarm(self.pace, self.state, self.now)
        self.looks += 1
        assert self.look is None or self.look > self.now
        if self.state.level != before:
            self.changes.append((self.now, self.state.level))

    @property
    def reading(self) -> Reading:
        tens = list(self.heard)
        parts = [tens[n : n + 6] for n in range(0, 60, 6)]
        return Reading(
            tuple(Minute(sum(v for v, _ in part), max(p for _, p in part)) for part in parts)
        )

    def _wakes(self) -> bool:
        """Do as the receiver's script does."""
        said, newest = self.alarm, self.reading.minutes[0]
        if said is None or not self.heard[0][0] or self.now < said.since:
            return False
        return min(newest.voices, newest.senders * said.share) >= said.voices


def talking(rate: int, state: State, pace: Pace = PACE) -> Chat:
    """Return a chat that has gone on at a rate for ten minutes, and was looked at just now."""
    chat = Chat(pace, state, heard=deque(reversed(per_minute(rate, 15, 10)), maxlen=60))
    chat.glance()
    return chat


def most_in_an_hour(times: list[datetime]) -> int:
    return max((sum(1 for t in times if s <= t < s + HOUR) for s in times), default=0)


# Traces


def test_a_step_of_load_is_answered_step_by_step_a_minute_apart():
    chat = Chat().play(per_minute(8, 8, 20))
    assert (chat.levels[-1], chat.looks) == (0, 0)  # an ordinary chat costs no look at all
    rises = chat.now
    chat.play(per_minute(45, 12, 6))
    assert [level for _, level in chat.changes] == [1, 2, 3, 4]
    times = [at for at, _ in chat.changes]
    assert times[0] - rises <= MINUTE
    assert all(after - before == MINUTE for before, after in pairwise(times))


def test_a_short_burst_is_one_step_up_and_one_down_after_five_quiet_minutes():
    chat = Chat().play([(18, 20), (20, 20)])
    over = chat.now
    chat.play(per_minute(4, 4, 30))
    assert [level for _, level in chat.changes] == [1, 0]
    took = chat.changes[1][0] - over
    assert timedelta(minutes=5) <= took <= timedelta(minutes=6) + BUCKET
    assert chat.looks <= 5


def test_twice_as_busy_is_two_steps_at_once():
    chat = Chat().play([(60, 60)])
    assert chat.levels == [2]


def test_a_raid_is_at_the_ceiling_within_ten_seconds_whatever_came_before():
    chat = Chat().play(per_minute(45, 12, 1))
    assert chat.levels[-1] == 1
    chat.play([(150, 150)] * 2)  # the last change is not a minute old
    assert chat.levels[-2:] == [4, 4]
    assert settings(PACE, chat.state) == Settings(user_posts_cooldown_seconds=120)


def test_a_slow_drift_goes_up_where_it_crosses_the_threshold_and_not_before():
    trace = [ten for rate in range(60) for ten in per_minute(rate, 20, 1)]
    chat = Chat().play(trace)
    crossed = START + 30 * MINUTE
    assert crossed <= chat.changes[0][0] <= crossed + 2 * MINUTE
    assert chat.levels == sorted(chat.levels)


@pytest.mark.parametrize("rate", [40, 600, 6000])
def test_one_loud_member_slows_nobody_and_wakes_no_worker(rate):
    chat = Chat().play(per_minute(rate, 1, 30))
    assert (chat.changes, chat.looks) == ([], 0)


def test_it_takes_five_members_to_make_a_chat_busy():
    assert Chat().play(per_minute(600, 4, 10)).changes == []
    assert Chat().play(per_minute(600, 5, 10)).levels[-1] > 0
    easy = replace(PACE, busy=10, quiet=4)
    assert Chat(easy).play(per_minute(600, 4, 10)).changes == []
    assert Chat(easy).play(per_minute(600, 5, 1)).levels[-1] == 1


def test_a_loud_member_does_not_keep_a_quiet_room_slow():
    chat = Chat().play(per_minute(45, 12, 1)).play(per_minute(300, 1, 12))
    assert [level for _, level in chat.changes] == [1, 0]


def test_one_loud_member_among_many_quiet_ones_slows_nobody():
    talk = per_minute(20, 20, 30)
    assert Chat().play(together(talk, per_minute(6000, 1, 30))).changes == []


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("around", [PACE.busy, PACE.quiet])
def test_noise_around_one_threshold_never_flaps(around, seed):
    """Every change of it goes the same way: not one up is ever followed by a down."""
    rng = random.Random(seed)
    start = 1 if around == PACE.quiet else 0
    chat = talking(20, State(start, (START,) * start, START if start else None))
    for _ in range(240):
        # Near `quiet` five minutes below it are rare and a step down is right; up is never.
        chat.play(per_minute(around + rng.randint(-8, 8), 15, 1))
    levels = [start, *(level for _, level in chat.changes)]
    assert levels == sorted(levels, reverse=around == PACE.quiet)
    assert len(chat.changes) <= len(PACE.steps)


def test_what_lies_between_the_thresholds_changes_nothing():
    chat = talking(20, State(2, (START,), START)).play(per_minute(20, 15, 300))
    assert chat.changes == []
    assert chat.looks <= 300 / 5 + 1  # one look in five minutes


def test_one_minute_that_is_not_quiet_begins_the_five_anew():
    chat = talking(20, State(1, (START - 10 * MINUTE,), START - 10 * MINUTE))
    chat.play(per_minute(5, 5, 4)).play(per_minute(20, 15, 1)).play(per_minute(5, 5, 4.5))
    assert chat.changes == []
    chat.play(per_minute(5, 5, 2))
    assert [level for _, level in chat.changes] == [0]


def test_waves_make_no_more_changes_in_an_hour_than_the_seller_allows():
    wave = per_minute(35, 12, 1.5) + per_minute(3, 3, 8)
    chat = Chat(replace(PACE, changes=4)).play(wave * 30)
    times = [at for at, _ in chat.changes]
    assert most_in_an_hour(times) == 4
    assert len(times) > 12


def test_the_last_change_of_an_hour_is_kept_for_a_step_up():
    wave = per_minute(35, 12, 1.5) + per_minute(3, 3, 8)
    used = (START - 40 * MINUTE, START - 30 * MINUTE, START - 20 * MINUTE)
    chat = talking(20, State(1, used, used[-1]), replace(PACE, changes=4))
    chat.play(per_minute(3, 3, 9))
    assert chat.changes == []  # five quiet minutes, and still no step down
    chat.play(wave)
    assert [level for _, level in chat.changes] == [2]


def test_a_silent_room_is_back_at_its_base_after_ten_minutes_and_asks_for_nothing_more():
    chat = Chat().play([(150, 150)])
    assert chat.levels[-1] == 4
    silent_from = chat.now
    chat.play([(0, 0)] * 90)
    assert chat.changes[-1][1] == 0
    assert chat.changes[-1][0] - silent_from <= 10 * MINUTE
    assert len(chat.changes) == 3  # a step down at five minutes, all the rest at ten
    assert chat.look is None


def test_a_worker_that_was_away_for_a_day_finds_the_base_at_its_first_look():
    state = State(4, (START - 25 * HOUR,), START - 25 * HOUR)
    assert step(PACE, state, Reading(), START) == (
        State(0, (START,), START - 25 * HOUR),
        None,
    )


# Edges


def minutes(*messages: int, people: int = 50) -> Reading:
    return Reading(tuple(Minute(number, min(number, people)) for number in messages))


@pytest.mark.parametrize(
    ("busy", "level"), [(29, 0), (30, 1), (59, 1), (60, 2), (119, 2), (120, 4), (9999, 4)]
)
def test_the_steps_of_the_law_at_their_edges(busy, level):
    state, _ = step(PACE, State(), minutes(busy), START)
    assert state.level == level


@pytest.mark.parametrize(("members", "level"), [(4, 0), (5, 1), (9, 1), (10, 2), (19, 2), (20, 4)])
def test_each_step_takes_its_number_of_members(members, level):
    """A look has other reasons than the alarm, too: the law itself must hold it."""
    state, _ = step(PACE, State(), Reading((Minute(500, members),)), START)
    assert state.level == level


@pytest.mark.parametrize(("newest", "level"), [(11, 1), (12, 2)])
def test_below_quiet_is_below(newest, level):
    state = State(2, (START - 5 * MINUTE,), START - 5 * MINUTE)
    assert step(PACE, state, minutes(newest, 11, 11, 11, 11, 12), START)[0].level == level


@pytest.mark.parametrize(("ago", "level"), [(299, 2), (300, 1)])
def test_a_change_stands_for_five_minutes_before_a_step_down(ago, level):
    at = START - timedelta(seconds=ago)
    state, look = step(PACE, State(2, (at,), at), minutes(1, 1, 1, 1, 1), START)
    assert state.level == level
    assert look == (at + 5 * MINUTE if level == 2 else START + 5 * MINUTE)


@pytest.mark.parametrize(("ago", "level"), [(59, 1), (60, 2)])
def test_two_steps_up_are_a_minute_apart(ago, level):
    at = START - timedelta(seconds=ago)
    assert step(PACE, State(1, (at,), at), minutes(40), START)[0].level == level


@pytest.mark.parametrize(("ago", "level"), [(3599, 1), (3600, 2)])
def test_a_change_counts_for_an_hour(ago, level):
    at = START - timedelta(seconds=ago)
    state = State(1, (at,), at)
    assert step(replace(PACE, changes=1), state, minutes(40), START)[0].level == level


def test_the_alarm_is_set_to_what_would_change_something():
    assert alarm(PACE, State(), START) == Alarm(30, 6.0, START + timedelta(seconds=5))
    fresh = State(1, (START,), START)
    assert alarm(PACE, fresh, START) == Alarm(120, 6.0, START + timedelta(seconds=5))
    assert step(PACE, fresh, minutes(40), START)[1] == START + MINUTE
    later = START + MINUTE
    assert alarm(PACE, fresh, later) == Alarm(30, 6.0, later + timedelta(seconds=5))
    assert alarm(PACE, State(4), START) is None
    used = (START,) * 6
    assert alarm(PACE, State(1, used, START), later) == Alarm(30, 6.0, START + HOUR)


def test_rules_with_fewer_steps_bring_the_room_down_to_the_last_of_them():
    short = replace(PACE, steps=(5,))
    assert cooldown(short, State(4)) == 5
    state, _ = step(short, State(4), minutes(20), START)
    assert (state.level, state.changed) == (1, ())
    assert settings(short, State()) == Settings()


def test_a_clock_that_was_put_back_binds_the_room_for_an_hour_at_most():
    ahead = START + timedelta(days=300)
    state = State(1, (ahead,) * 6, ahead)
    state, _ = step(PACE, state, minutes(20), START)
    assert state == State(1, (START,) * 6, START)
    assert step(PACE, state, minutes(40), START + HOUR)[0].level == 2


# Laws, on any trace

paces = st.builds(
    lambda busy, part, steps, changes: Pace(
        busy=busy, quiet=1 + part * (busy - 2) // 100, steps=tuple(sorted(steps)), changes=changes
    ),
    st.integers(2, 100),
    st.integers(0, 100),
    st.sets(st.integers(1, 300), min_size=1, max_size=5),
    st.integers(1, 8),
)
traces = st.lists(
    st.tuples(st.integers(1, 120), st.integers(0, 150), st.integers(1, 80)), max_size=25
).map(lambda parts: [(min(m, p), p if m else 0) for tens, m, p in parts for _ in range(tens)])


@examples(max_examples=150)
@given(paces, traces)
def test_on_any_trace_the_bounds_hold(pace, trace):
    chat = Chat(pace).play(trace)
    assert all(0 <= level <= len(pace.steps) for level in chat.levels)
    assert most_in_an_hour([at for at, _ in chat.changes]) <= pace.changes
    before = 0
    ups: list[datetime] = []
    for at, level in chat.changes:
        if level > before:
            raid = level == len(pace.steps)
            assert raid or all(at - up >= MINUTE for up in ups[-1:])
            ups.append(at)
        else:
            earlier = [t for t, _ in chat.changes if t < at]
            assert at - earlier[-1] >= 5 * MINUTE or level == 0
        before = level


@examples(max_examples=100)
@given(paces, traces)
def test_after_any_trace_a_silent_room_comes_back_to_its_base(pace, trace):
    chat = Chat(pace).play(trace)
    chat.play([(0, 0)] * 6 * 71)
    assert chat.state.level == 0
    assert chat.look is None


@examples(max_examples=100)
@given(paces, traces)
def test_every_change_has_its_reason_in_what_was_counted(pace, trace):
    chat = Chat(pace)
    for ten in trace:
        before = chat.state.level
        chat.play([ten])
        busy = [load(pace, minute) for minute in chat.reading.minutes]
        if chat.state.level > before:
            assert busy[0] >= pace.busy
        if chat.state.level < before:
            assert all(one < pace.quiet for one in busy[:5])


@examples(max_examples=100)
@given(paces, traces, st.integers(0, 6))
def test_to_look_when_nothing_calls_for_it_changes_no_more_than_the_law_allows(pace, trace, more):
    chat = Chat(pace)
    for at, ten in enumerate(trace):
        chat.play([ten])
        if at % 7 < more:
            chat.glance()
    assert most_in_an_hour([at for at, _ in chat.changes]) <= pace.changes
