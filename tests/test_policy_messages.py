"""What is written into an event room, and when, against instants worked out by hand."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from worker.policy.messages import (
    LATE,
    Due,
    Message,
    When,
    messages_at,
    messages_between,
    next_message,
)
from worker.policy.occurrences import Occurrence, Occurrences
from worker.policy.schedule import Schedule

NEW_YORK = ZoneInfo("America/New_York")
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)

TALKS = Occurrences(datetime(2026, 3, 5, 18), 1.5 * HOUR, "FREQ=WEEKLY;BYDAY=TH;COUNT=2")
"""5 March from 22:45 to 01:00 UTC, and after the clock change 12 March, 21:45 to 00:00."""

SOON = Message(when=When.BEFORE, text="soon", ahead=2 * HOUR, pin=True)
LIVE = Message(when=When.OPENING, text="live")
THANKS = Message(when=When.LOCK, text="thanks")
ALL = (SOON, LIVE, THANKS)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def event(*lines: Occurrences, dated: tuple[Occurrence, ...] | None = None) -> Schedule:
    return Schedule(
        NEW_YORK,
        occurrences=lines,
        dated=dated,
        opens=timedelta(minutes=15),
        locks=timedelta(minutes=30),
    )


def keys(found: Sequence[Due]) -> list[str]:
    return [due.key for due in found]


def texts(found: Sequence[Due]) -> list[str]:
    return [due.text for due in found]


def test_each_message_has_its_moment_and_its_end():
    found = messages_between(event(TALKS), ALL, utc("2026-03-01T00:00"), utc("2026-04-01T00:00"))
    moments = [
        ("soon", "2026-03-05T20:45", "2026-03-05T22:45"),
        ("live", "2026-03-05T22:45", "2026-03-06T01:00"),
        ("thanks", "2026-03-06T01:00", "2026-03-06T02:00"),
        ("soon", "2026-03-12T19:45", "2026-03-12T21:45"),
        ("live", "2026-03-12T21:45", "2026-03-13T00:00"),
        ("thanks", "2026-03-13T00:00", "2026-03-13T01:00"),
    ]
    assert [(due.text, due.pin, due.at, due.until) for due in found] == [
        (text, text == "soon", utc(at), utc(until)) for text, at, until in moments
    ]
    days = [due.key.partition("/")[0] for due in found]
    assert days == ["2026-03-05T1800@2026-03-05"] * 3 + ["2026-03-12T1800@2026-03-12"] * 3


def test_unsaid_a_message_comes_an_hour_before_the_opening():
    before = Message(when=When.BEFORE, text="x")
    assert next_message(event(TALKS), [before], utc("2026-03-01T00:00")) == utc("2026-03-05T21:45")


@pytest.mark.parametrize(
    ("since", "until", "found"),
    [
        ("2026-03-05T20:45:00", "2026-03-05T22:45:00", ["soon", "live"]),  # both ends count
        ("2026-03-05T20:45:01", "2026-03-05T22:44:59", []),
        ("2026-03-05T20:44:00", "2026-03-05T20:45:00", ["soon"]),  # two hours ahead of the span
        ("2026-03-06T01:00:00", "2026-03-06T01:00:00", ["thanks"]),
        ("2026-03-06T01:00:01", "2026-03-12T19:44:59", []),
    ],
)
def test_the_messages_of_a_stretch_are_those_whose_moments_lie_in_it(since, until, found):
    due = messages_between(event(TALKS), ALL, utc(since), utc(until))
    assert texts(due) == found


@pytest.mark.parametrize(
    ("t", "found"),
    [
        ("2026-03-05T20:44:59", []),
        ("2026-03-05T20:45:00", ["soon"]),
        ("2026-03-05T22:44:59", ["soon"]),
        ("2026-03-05T22:45:00", ["live"]),  # an invitation to what has begun is too late
        ("2026-03-06T00:59:59", ["live"]),
        ("2026-03-06T01:00:00", ["thanks"]),
        ("2026-03-06T01:59:59", ["thanks"]),
        ("2026-03-06T02:00:00", []),
        ("2026-03-09T00:00:00", []),  # nor does a worker that was away come back with it
    ],
)
def test_a_message_that_is_late_is_written_while_it_makes_sense(t, found):
    due = messages_at(event(TALKS), ALL, utc(t))
    assert texts(due) == found


def test_messages_of_one_kind_stand_side_by_side_in_the_order_of_their_moments():
    earlier = replace(SOON, ahead=DAY)
    both = messages_at(event(TALKS), [SOON, earlier], utc("2026-03-05T21:00"))
    assert [due.at for due in both] == [utc("2026-03-04T22:45"), utc("2026-03-05T20:45")]
    assert len({*keys(both)}) == 2  # though they have one text
    stretch = messages_between(
        event(TALKS), [SOON, earlier], utc("2026-03-04T00:00"), utc("2026-03-06T00:00")
    )
    assert stretch == both


@pytest.mark.parametrize(
    ("t", "expected"),
    [
        ("2026-01-01T00:00:00", "2026-03-05T20:45"),
        ("2026-03-05T20:44:59", "2026-03-05T20:45"),
        ("2026-03-05T20:45:00", "2026-03-05T22:45"),
        ("2026-03-06T00:59:59", "2026-03-06T01:00"),
        ("2026-03-06T01:00:00", "2026-03-12T19:45"),
        ("2026-03-13T00:00:00", None),
    ],
)
def test_the_next_message_is_the_first_one_after_an_instant(t, expected):
    assert next_message(event(TALKS), ALL, utc(t)) == (expected and utc(expected))


def test_the_next_message_of_a_yearly_or_endless_event_is_found():
    leap = Occurrences(datetime(2024, 2, 29, 12), HOUR, "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29")
    assert next_message(event(leap), [SOON], utc("2024-03-01T00:00")) == utc("2028-02-29T14:45")
    weekly = replace(TALKS, repeats="FREQ=WEEKLY")
    assert next_message(event(weekly), [SOON], utc("2036-03-07T00:00")) == utc("2036-03-13T19:45")


def test_without_messages_or_dates_there_is_nothing_to_write():
    now = utc("2026-03-05T21:00")
    for schedule, messages in ((event(TALKS), ()), (event(dated=()), ALL), (event(), ALL)):
        assert messages_at(schedule, messages, now) == []
        assert messages_between(schedule, messages, now - 9 * DAY, now + 9 * DAY) == []
        assert next_message(schedule, messages, now) is None


def test_nothing_is_written_for_what_is_called_off():
    one = Occurrence("ama", utc("2026-03-05T23:00"), utc("2026-03-06T00:00"))
    on = event(dated=()).only(one, cancelled=False)
    off = event(dated=()).only(one, cancelled=True)
    now = utc("2026-03-05T21:00")
    assert texts(messages_at(on, ALL, now)) == ["soon"]
    assert messages_at(off, ALL, now) == []
    assert messages_between(off, ALL, now - DAY, now + DAY) == []
    assert next_message(off, ALL, now) is None


def moved(starts: str) -> list[str]:
    one = Occurrence("ama", utc(starts), utc(starts) + HOUR)
    return keys(messages_between(event(dated=(one,)), ALL, one.starts - DAY, one.ends + DAY))


def test_an_occurrence_that_is_moved_on_its_day_gets_no_message_twice():
    evening = moved("2026-03-05T23:50")  # 18:50 in New York
    assert len(evening) == 3
    assert moved("2026-03-05T23:30") == evening
    assert moved("2026-03-06T00:10") == evening  # 19:10 of the same day, though not in UTC


def test_an_occurrence_that_is_moved_to_another_day_gets_its_messages_anew():
    assert not {*moved("2026-03-05T23:50")} & {*moved("2026-03-06T23:50")}
    assert not {*moved("2026-03-05T23:50")} & {*moved("2026-03-06T05:10")}  # 00:10, the next day


def test_a_message_that_is_added_or_taken_out_does_not_bring_back_the_others():
    stretch = utc("2026-03-01T00:00"), utc("2026-04-01T00:00")
    before = {*keys(messages_between(event(TALKS), ALL, *stretch))}
    more = {*keys(messages_between(event(TALKS), (replace(SOON, text="x"), *ALL), *stretch))}
    assert before < more
    assert {*keys(messages_between(event(TALKS), (LIVE, THANKS), *stretch))} < before


def test_start_and_end_are_written_out_in_the_rooms_zone_wherever_they_stand():
    text = "{starts} to {ends}; come at {starts}. {seats} {} are yours"
    first, second = messages_between(
        event(TALKS), [replace(LIVE, text=text)], utc("2026-03-01T00:00"), utc("2026-04-01T00:00")
    )
    began = "Thu 5 Mar, 18:00 EST"
    assert (
        first.text == f"{began} to Thu 5 Mar, 19:30 EST; come at {began}. {{seats}} {{}} are yours"
    )
    assert second.text.startswith("Thu 12 Mar, 18:00 EDT to Thu 12 Mar, 19:30 EDT;")


BEGIN = utc("2026-10-20T00:30")
dated = st.lists(
    st.tuples(st.integers(0, 30 * 24), st.integers(0, 48)), min_size=1, max_size=4
).map(
    lambda spans: tuple(
        Occurrence(f"d{n}", BEGIN + at * HOUR, BEGIN + (at + length) * HOUR)
        for n, (at, length) in enumerate(spans)
    )
)
messages = st.lists(
    st.builds(
        Message,
        when=st.sampled_from(When),
        text=st.just("x"),
        ahead=st.integers(1, 100).map(lambda hours: hours * HOUR),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda message: (message.when, message.ahead),
)
schedules = st.builds(
    Schedule,
    st.sampled_from([NEW_YORK, ZoneInfo("UTC"), ZoneInfo("Australia/Lord_Howe")]),
    occurrences=st.sampled_from([(), (TALKS,), (replace(TALKS, repeats="FREQ=DAILY"),)]),
    dated=dated,
    opens=st.integers(0, 3).map(lambda hours: hours * HOUR),
    locks=st.integers(0, 3).map(lambda hours: hours * HOUR),
)


def nearby(schedule: Schedule, said: list[Message], hours: int) -> list[datetime]:
    """Return instants at, and just beside, the moments and ends of messages, and another one."""
    t = utc("2026-10-18T00:00") + hours * HOUR
    found = messages_between(schedule, said, t, t + 5 * DAY)
    moments = [at for due in found[:6] for at in (due.at, due.until)]
    return [t, *(at + by for at in moments for by in (-SECOND, timedelta(0), SECOND))]


@examples(max_examples=40, deadline=None)
@given(schedules, messages, st.integers(0, 40 * 24))
def test_what_stands_at_an_instant_are_just_the_messages_whose_time_holds_it(schedule, said, hours):
    for t in nearby(schedule, said, hours):
        every = messages_between(schedule, said, t - 10 * DAY, t)
        assert messages_at(schedule, said, t) == [due for due in every if due.at <= t < due.until]


@examples(max_examples=40, deadline=None)
@given(schedules, messages, st.integers(0, 40 * 24))
def test_the_next_message_is_the_first_of_those_that_follow(schedule, said, hours):
    for t in nearby(schedule, said, hours):
        later = messages_between(schedule, said, t + SECOND, t + 60 * DAY)
        found = next_message(schedule, said, t)
        assert found == (later[0].at if later else found)
        assert found is None or found > t


@examples(max_examples=40, deadline=None)
@given(schedules, messages)
def test_no_two_messages_of_a_room_have_one_key(schedule, said):
    found = messages_between(schedule, said, utc("2026-10-18T00:00"), utc("2026-11-10T00:00"))
    assert len({due.key for due in found}) == len(found)
    assert found == sorted(found, key=lambda due: due.at)


def test_a_message_at_the_lock_makes_sense_for_an_hour():
    assert LATE == HOUR
