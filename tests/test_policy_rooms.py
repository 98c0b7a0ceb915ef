"""Which rooms an event calls for, when they are made, and which one a ticket opens."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from worker.policy.occurrences import Occurrence, Occurrences
from worker.policy.phases import Phase
from worker.policy.rooms import Cohorts, Room, dated_title, instance, split, title
from worker.policy.schedule import Schedule, Window, phase_at
from worker.policy.settings import Settings

NEW_YORK = ZoneInfo("America/New_York")
UTC_ZONE = ZoneInfo("UTC")
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

TALKS = Occurrences(datetime(2026, 3, 5, 18), 1.5 * HOUR, "FREQ=WEEKLY;BYDAY=TH;COUNT=3")
"""5 March from 22:45 to 01:00 UTC, and after the clock change 12 and 19 March, 21:45 to 00:00."""

WEEKLY = replace(TALKS, repeats="FREQ=WEEKLY;BYDAY=TH")
LONG = Occurrences(datetime(2026, 3, 5, 18), 4 * HOUR)
SHORT = Occurrences(datetime(2026, 3, 5, 19), HOUR)
LATER = Occurrences(datetime(2026, 3, 5, 19), 5 * HOUR)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def room(*lines: Occurrences, dated: tuple[Occurrence, ...] | None = None, **says) -> Room:
    schedule = Schedule(
        NEW_YORK,
        occurrences=lines,
        dated=dated,
        opens=timedelta(minutes=15),
        locks=timedelta(minutes=30),
        archives=2 * DAY,
    )
    return Room("talks", "Talk of {date}", ("prod_a",), schedule, **says)


def apart(*lines: Occurrences, **says) -> Room:
    """A room of which each occurrence has one of its own."""
    return room(*lines, **({"one_room_per": "occurrence"} | says))


def ids(occurrences: list[Occurrence]) -> list[str]:
    return [one.id.removeprefix("2026-03-") for one in occurrences]


def single(id_: str, starts: str, length: timedelta = HOUR) -> Occurrence:
    return Occurrence(id_, utc(starts), utc(starts) + length)


@pytest.mark.parametrize(
    ("now", "due", "coming"),
    [
        ("2026-01-01T00:00:00", [], "2026-03-02T22:45:00"),
        ("2026-03-02T22:44:59", [], "2026-03-02T22:45:00"),
        ("2026-03-02T22:45:00", ["05T1800"], "2026-03-09T21:45:00"),  # an hour less that week
        ("2026-03-06T01:00:00", ["05T1800"], "2026-03-09T21:45:00"),  # it locks just now
        ("2026-03-06T01:00:01", [], "2026-03-09T21:45:00"),
        ("2026-03-09T21:44:59", [], "2026-03-09T21:45:00"),
        ("2026-03-09T21:45:00", ["12T1800"], "2026-03-16T21:45:00"),
        ("2026-03-16T21:45:00", ["19T1800"], None),
        ("2026-03-21T00:00:00", [], None),
    ],
)
def test_an_occurrences_room_is_made_its_lead_before_it_opens(now, due, coming):
    found = apart(TALKS, lead=3 * DAY).to_make(utc(now))
    assert (ids(found[0]), found[1]) == (due, coming and utc(coming))


@pytest.mark.parametrize(
    ("lead", "now", "due", "coming"),
    [
        # a week where nothing is said
        (None, "2026-02-26T22:44:59", [], "2026-02-26T22:45:00"),
        (None, "2026-02-26T22:45:00", ["05T1800"], "2026-03-05T21:45:00"),
        (None, "2026-03-05T21:45:00", ["05T1800", "12T1800"], "2026-03-12T21:45:00"),
        # none at all
        (timedelta(0), "2026-03-05T22:44:59", [], "2026-03-05T22:45:00"),
        (timedelta(0), "2026-03-05T22:45:00", ["05T1800"], "2026-03-12T21:45:00"),
        # longer than the time between them
        (10 * DAY, "2026-03-02T21:45:00", ["05T1800", "12T1800"], "2026-03-09T21:45:00"),
    ],
)
def test_a_lead_may_be_unsaid_or_none_or_longer_than_a_week(lead, now, due, coming):
    found = apart(TALKS, lead=lead).to_make(utc(now))
    assert (ids(found[0]), found[1]) == (due, utc(coming))


def test_an_endless_series_has_its_rooms_made_years_later_too():
    due, coming = apart(WEEKLY, lead=3 * DAY).to_make(utc("2036-03-05T00:00"))
    assert due == [
        Occurrence("2036-03-06T1800", utc("2036-03-06T23:00"), utc("2036-03-07T00:30")),
    ]
    assert coming == utc("2036-03-10T21:45")


def test_occurrences_that_overlap_each_get_their_room():
    due, coming = apart(SHORT, LONG, lead=DAY).to_make(utc("2026-03-05T00:00"))
    assert ids(due) == ["05T1800", "05T1900"]
    assert coming is None


@pytest.mark.parametrize(
    "none", [apart(dated=()), apart(dated=(single("ama-1", "2026-02-01T18:00"),))]
)
def test_without_an_occurrence_ahead_there_is_nothing_to_make(none):
    now = utc("2026-03-01T00:00")
    assert none.to_make(now) == ([], None)
    assert none.bought_key(now, now) is None
    assert room(dated=none.schedule.dated, lead=DAY).due_from(None, now) is None


def test_a_calendars_dates_have_rooms_as_the_rules_lines_have():
    one, other = single("ama-1", "2026-03-05T18:00"), single("ama-2", "2026-03-04T18:00")
    both = apart(dated=(one, other), lead=DAY)
    assert both.to_make(utc("2026-03-04T00:00")) == ([other], utc("2026-03-04T17:45"))
    assert both.bought_key(utc("2026-03-04T00:00"), utc("2026-03-04T00:00")) == "talks/ama-2"


@pytest.mark.parametrize(
    ("bought", "now", "key"),
    [
        ("2026-01-01T00:00:00", "2026-01-01T00:00:00", "talks/2026-03-05T1800"),
        ("2026-03-05T22:45:00", "2026-03-05T22:45:00", "talks/2026-03-05T1800"),
        ("2026-03-06T00:59:59", "2026-03-06T00:59:59", "talks/2026-03-05T1800"),
        ("2026-03-06T01:00:00", "2026-03-06T01:00:00", "talks/2026-03-12T1800"),
        ("2026-03-07T00:00:00", "2026-03-12T23:59:59", "talks/2026-03-12T1800"),
        ("2026-03-07T00:00:00", "2026-03-13T00:00:00", None),  # it locks just now
        ("2026-01-01T00:00:00", "2026-03-06T01:00:00", None),  # its evening is over
        ("2026-03-20T00:00:00", "2026-03-20T00:00:00", None),
        ("2027-01-01T00:00:00", "2027-01-01T00:00:00", None),
    ],
)
def test_a_ticket_calls_for_the_first_occurrence_that_was_not_over_when_it_was_bought(
    bought, now, key
):
    assert apart(TALKS).bought_key(utc(bought), utc(now)) == key


@pytest.mark.parametrize(
    ("lines", "bought", "key"),
    [
        ((SHORT, LONG), "2026-03-06T00:30", "05T1800"),  # both are on: the one that began
        ((SHORT, LONG), "2026-03-06T02:00", "05T1800"),  # the shorter one is over
        ((LONG, LATER), "2026-03-06T03:29", "05T1800"),
        ((LONG, LATER), "2026-03-06T03:30", "05T1900"),  # the earlier one is over
    ],
)
def test_among_occurrences_that_overlap_a_ticket_calls_for_the_earliest_that_is_not_over(
    lines, bought, key
):
    found = apart(*lines).bought_key(utc(bought), utc(bought))
    assert found == f"talks/2026-03-{key}"


def test_a_ticket_for_a_series_calls_for_its_one_room():
    now = utc("2030-01-01T00:00")
    assert room(TALKS).bought_key(now, now) == "talks"


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2026-01-01T00:00", "2026-02-26T22:45"),
        ("2026-03-01T00:00", "2026-02-26T22:45"),  # since then
        ("2026-03-05T22:45", "2026-03-05T22:45"),  # it is open: now
        ("2026-03-06T00:59", "2026-03-06T00:59"),
        ("2026-03-06T01:01", "2026-03-05T21:45"),  # the next one's lead has begun
        ("2026-03-20T00:01", None),
    ],
)
def test_a_room_with_a_lead_is_due_a_while_before_its_next_opening(now, due):
    assert room(TALKS, lead=7 * DAY).due_from(None, utc(now)) == (due and utc(due))


def test_a_room_without_a_lead_is_due_at_once_though_all_be_over():
    now = utc("2030-01-01T00:00")
    assert room(TALKS).due_from(None, now) == now
    assert room().due_from(None, now) == now


def test_a_room_that_waits_for_a_purchase_is_never_due_by_itself():
    now = utc("2026-03-05T23:00")
    assert room(TALKS, provision="on_purchase").due_from(None, now) is None
    waiting = apart(TALKS, provision="on_purchase")
    assert waiting.due_from("2026-03-05T1800", now) is None


def test_an_occurrences_room_is_due_while_it_is_planned():
    now = utc("2026-03-01T00:00")
    assert apart(TALKS, lead=DAY).due_from("2026-03-05T1800", now) == now
    assert apart(TALKS).due_from("2026-03-05T1800", now) == now
    assert apart(TALKS).due_from("2026-03-06T1800", now) is None
    assert apart(dated=()).due_from("ama-1", now) is None


def test_a_cohorts_room_is_due_at_once():
    now = utc("2026-03-01T00:00")
    course = Room("course", "{cohort}", ("prod_a",), Schedule(UTC_ZONE), Cohorts("month"))
    assert course.due_from("2026-03", now) == now


@pytest.mark.parametrize(
    ("found", "waits"),
    [
        (room(TALKS), False),
        (room(TALKS, lead=DAY), True),
        (room(TALKS, lead=timedelta(0)), True),
        (room(provision="on_purchase"), True),
        (apart(TALKS), True),
        (room(cohort=Cohorts("month")), False),
        (room(cohort=Cohorts("month"), provision="on_purchase"), False),
    ],
)
def test_a_first_buyer_brings_a_room_into_being_that_may_not_be_there_yet(found, waits):
    assert found.waits is waits


@pytest.mark.parametrize(
    ("found", "divided"),
    [(room(TALKS), False), (apart(TALKS), True), (room(cohort=Cohorts("month")), True)],
)
def test_a_room_is_divided_into_cohorts_or_occurrences(found, divided):
    assert found.divided is divided


def test_the_one_room_of_a_series_has_the_whole_schedule():
    series = room(TALKS)
    assert series.schedule_of(None) is series.schedule
    assert series.schedule_of("2026-03-12T1800") is series.schedule
    assert apart(TALKS).schedule_of(None).occurrences == (TALKS,)
    cohorts = room(TALKS, cohort=Cohorts("month"))
    assert cohorts.schedule_of("2026-03") is cohorts.schedule


def test_an_occurrences_room_opens_for_it_alone():
    night = Window(datetime.min.time(), datetime.max.time(), settings=Settings(ban_urls=True))
    talks = apart(TALKS)
    talks = replace(talks, schedule=replace(talks.schedule, windows=(night,), paced=True))
    schedule = talks.schedule_of("2026-03-12T1800")
    phases = {
        "2026-03-05T23:00": Phase.BEFORE,
        "2026-03-12T21:44": Phase.BEFORE,
        "2026-03-12T21:45": Phase.OPEN,
        "2026-03-13T00:00": Phase.LOCKED,
        "2026-03-14T23:59": Phase.LOCKED,
        "2026-03-15T00:00": Phase.ARCHIVED,
        "2026-03-19T22:00": Phase.ARCHIVED,
    }
    assert {t: phase_at(schedule, utc(t)) for t in phases} == phases
    assert (schedule.windows, schedule.paced) == ((night,), True)


def test_the_room_of_an_occurrence_that_is_called_off_does_not_open_and_is_archived():
    last = single("ama-1", "2026-03-05T23:00")
    schedule = apart(dated=()).schedule_of("ama-1", last)
    phases = {
        "2026-03-01T00:00": Phase.LOCKED,
        "2026-03-05T23:30": Phase.LOCKED,
        "2026-03-08T00:30": Phase.ARCHIVED,  # two days after it would have locked
    }
    assert {t: phase_at(schedule, utc(t)) for t in phases} == phases


def test_the_room_of_an_occurrence_that_is_moved_follows_it():
    before, moved = single("ama-1", "2026-03-05T23:00"), single("ama-1", "2026-03-09T23:00")
    schedule = apart(dated=(moved,)).schedule_of("ama-1", before)
    assert phase_at(schedule, utc("2026-03-05T23:30")) == Phase.BEFORE
    assert phase_at(schedule, utc("2026-03-09T23:30")) == Phase.OPEN


@pytest.mark.parametrize(
    ("starts", "expected"),
    [
        ("2026-03-05T23:00", "Talk of Thu 5 Mar 2026, 18:00"),
        ("2026-03-12T22:00", "Talk of Thu 12 Mar 2026, 18:00"),  # after the clock change
        ("2026-04-01T03:30", "Talk of Tue 31 Mar 2026, 23:30"),  # another day than in UTC
    ],
)
def test_an_occurrences_room_is_called_by_its_start_in_the_rooms_zone(starts, expected):
    assert dated_title(room(), single("x", starts)) == expected


@pytest.mark.parametrize(
    ("name", "part", "key"),
    [
        ("lounge", None, "lounge"),
        ("course", "2026-12", "course/2026-12"),
        ("talks", "1f2e-2026/x", "talks/1f2e-2026/x"),
    ],
)
def test_the_key_of_a_room_names_the_room_and_its_part(name, part, key):
    assert instance(replace(room(), key=name), part) == key
    assert split(key) == (name, part)


def test_a_cohorts_title_has_it_written_out_for_people():
    course = replace(room(), name="Course, {cohort}")
    assert title(course, None) == "Course, {cohort}"
    assert title(course, "2026-12") == "Course, December 2026"
    assert title(course, "2026-W09") == "Course, week 9 of 2026"
    assert title(course, "12") == "Course, 12"
