"""The calendar of a room, against instants that were worked out by hand."""

import itertools
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from worker.policy.occurrences import Occurrences, instant
from worker.policy.phases import Phase
from worker.policy.schedule import (
    Change,
    Schedule,
    Weekday,
    Window,
    changes_after,
    edges,
    next_change,
    phase_at,
    settings_at,
)
from worker.policy.settings import Settings, WhoCanPost, WhoCanReact, tighten

NEW_YORK = ZoneInfo("America/New_York")
LONDON = ZoneInfo("Europe/London")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")
UTC_ZONE = ZoneInfo("UTC")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def slow(seconds: int) -> Settings:
    return Settings(user_posts_cooldown_seconds=seconds)


@pytest.mark.parametrize(
    ("zone", "local", "expected"),
    [
        # New York: 02:00 EST becomes 03:00 EDT on 8 March, and back at 02:00 on 1 November
        (NEW_YORK, "2026-03-08T01:59", "2026-03-08T06:59"),
        (NEW_YORK, "2026-03-08T02:30", "2026-03-08T07:30"),  # skipped: read as EST, 03:30 EDT
        (NEW_YORK, "2026-03-08T03:00", "2026-03-08T07:00"),
        (NEW_YORK, "2026-11-01T00:59", "2026-11-01T04:59"),
        (NEW_YORK, "2026-11-01T01:30", "2026-11-01T05:30"),  # repeated: the first, EDT
        (NEW_YORK, "2026-11-01T02:00", "2026-11-01T07:00"),
        # London: 01:00 GMT becomes 02:00 BST on 29 March, and back at 02:00 on 25 October
        (LONDON, "2026-03-29T00:59", "2026-03-29T00:59"),
        (LONDON, "2026-03-29T01:30", "2026-03-29T01:30"),  # skipped: read as GMT, 02:30 BST
        (LONDON, "2026-03-29T02:00", "2026-03-29T01:00"),
        (LONDON, "2026-10-25T01:30", "2026-10-25T00:30"),  # repeated: the first, BST
        (LONDON, "2026-10-25T02:00", "2026-10-25T02:00"),
        # Lord Howe: half an hour, +10:30 to +11 on 4 October, back at 02:00 on 5 April
        (LORD_HOWE, "2026-10-04T01:59", "2026-10-03T15:29"),
        (LORD_HOWE, "2026-10-04T02:15", "2026-10-03T15:45"),  # skipped: read at +10:30
        (LORD_HOWE, "2026-10-04T02:30", "2026-10-03T15:30"),
        (LORD_HOWE, "2026-04-05T01:45", "2026-04-04T14:45"),  # repeated: the first, at +11
        (LORD_HOWE, "2026-04-05T02:00", "2026-04-04T15:30"),
        (UTC_ZONE, "2026-03-08T02:30", "2026-03-08T02:30"),
        (UTC_ZONE, "2026-11-01T01:30", "2026-11-01T01:30"),
    ],
)
def test_a_local_time_names_one_instant(zone, local, expected):
    assert instant(datetime.fromisoformat(local), zone) == utc(expected)


NIGHT = Window(time(22), time(7), settings=slow(60))


@pytest.mark.parametrize(
    ("zone", "night", "begins", "ends"),
    [
        # nine hours, but eight where the clock goes forward and ten where it goes back
        (NEW_YORK, "2026-03-06", "2026-03-07T03:00", "2026-03-07T12:00"),
        (NEW_YORK, "2026-03-07", "2026-03-08T03:00", "2026-03-08T11:00"),
        (NEW_YORK, "2026-10-31", "2026-11-01T02:00", "2026-11-01T12:00"),
        (LONDON, "2026-03-28", "2026-03-28T22:00", "2026-03-29T06:00"),
        (LONDON, "2026-10-24", "2026-10-24T21:00", "2026-10-25T07:00"),
        (LORD_HOWE, "2026-10-03", "2026-10-03T11:30", "2026-10-03T20:00"),
        (LORD_HOWE, "2026-04-04", "2026-04-04T11:00", "2026-04-04T20:30"),
        (UTC_ZONE, "2026-03-07", "2026-03-07T22:00", "2026-03-08T07:00"),
    ],
)
def test_quiet_hours_over_midnight_end_on_the_next_morning(zone, night, begins, ends):
    schedule = Schedule(zone, windows=(NIGHT,))
    noon = instant(datetime.combine(date.fromisoformat(night), time(12)), zone)
    first, second = itertools.islice(changes_after(schedule, noon), 2)
    assert first == Change(utc(begins), Phase.OPEN, slow(60))
    assert second == Change(utc(ends), Phase.OPEN, slow(0))


def test_a_window_holds_on_the_days_on_which_it_begins():
    friday_night = Window(time(22), time(7), frozenset({Weekday.FRI}), slow(60))
    schedule = Schedule(UTC_ZONE, windows=(friday_night,))
    assert settings_at(schedule, utc("2026-11-21T06:59")) == slow(60)  # Saturday's morning
    assert settings_at(schedule, utc("2026-11-21T07:00")) == slow(0)
    assert settings_at(schedule, utc("2026-11-21T22:00")) == slow(0)
    assert next_change(schedule, utc("2026-11-21T07:00")) == Change(
        utc("2026-11-27T22:00"), Phase.OPEN, slow(60)
    )


def test_a_window_whose_end_a_clock_change_puts_before_its_start_does_not_hold_that_day():
    sliver = Window(time(2, 45), time(3, 15), settings=slow(60))
    schedule = Schedule(NEW_YORK, windows=(sliver,))
    assert edges(schedule, utc("2026-03-08T05:00"), utc("2026-03-08T10:00")) == []
    assert len(edges(schedule, utc("2026-03-09T05:00"), utc("2026-03-09T10:00"))) == 2


def test_a_window_that_a_clock_change_repeats_holds_through_both_hours():
    hour = Window(time(1, 15), time(2, 15), settings=slow(60))
    schedule = Schedule(NEW_YORK, windows=(hour,))
    assert edges(schedule, utc("2026-11-01T04:00"), utc("2026-11-01T10:00")) == [
        utc("2026-11-01T05:15"),  # 01:15 EDT
        utc("2026-11-01T07:15"),  # 02:15 EST
    ]


AMA = Occurrences(datetime(2026, 3, 5, 18), timedelta(minutes=90), "FREQ=WEEKLY;BYDAY=TH;COUNT=2")


def event(*lines: Occurrences, zone: ZoneInfo = NEW_YORK, **changes) -> Schedule:
    around = {
        "opens": timedelta(minutes=15),
        "locks": timedelta(minutes=30),
        "archives": timedelta(days=14),
    }
    return Schedule(zone, occurrences=lines, **(around | changes))


@pytest.mark.parametrize(
    ("at", "phase"),
    [
        ("2026-01-01T00:00:00", Phase.BEFORE),
        ("2026-03-05T22:44:59", Phase.BEFORE),
        ("2026-03-05T22:45:00", Phase.OPEN),  # 17:45 EST
        ("2026-03-06T00:59:59", Phase.OPEN),
        ("2026-03-06T01:00:00", Phase.LOCKED),  # 20:00 EST
        ("2026-03-12T21:44:59", Phase.LOCKED),
        ("2026-03-12T21:45:00", Phase.OPEN),  # 17:45 EDT: the clock changed between
        ("2026-03-13T00:00:00", Phase.LOCKED),
        ("2026-03-26T23:59:59", Phase.LOCKED),
        ("2026-03-27T00:00:00", Phase.ARCHIVED),  # 14 days after the last lock
        ("2030-01-01T00:00:00", Phase.ARCHIVED),
    ],
)
def test_an_event_room_goes_through_its_phases(at, phase):
    assert phase_at(event(AMA), utc(at)) == phase


def test_the_phases_set_what_the_seller_says_over_what_usher_does():
    schedule = event(AMA, phases={Phase.OPEN: slow(10), Phase.LOCKED: Settings(ban_media=True)})
    before, opened, locked = (
        settings_at(schedule, utc(t))
        for t in ("2026-03-01T00:00", "2026-03-05T23:00", "2026-03-07T00:00")
    )
    assert (before.who_can_post, before.user_posts_cooldown_seconds) == (WhoCanPost.ADMINS, 0)
    assert (opened.who_can_post, opened.user_posts_cooldown_seconds) == (WhoCanPost.EVERYONE, 10)
    assert (locked.who_can_post, locked.ban_media) == (WhoCanPost.ADMINS, True)
    assert opened.ban_media is False
    archived = settings_at(schedule, utc("2027-01-01T00:00"))
    assert archived.who_can_react == WhoCanReact.NO_ONE


def test_occurrences_that_overlap_keep_the_room_open_until_the_last_one_locks():
    longer = Occurrences(datetime(2026, 3, 5, 19), timedelta(hours=3))
    schedule = event(AMA, longer)
    assert next_change(schedule, utc("2026-03-05T23:00")).at == utc("2026-03-06T03:30")


def test_an_occurrence_in_the_repeated_hour_lasts_its_elapsed_time():
    vigil = Occurrences(datetime(2026, 11, 1, 0, 30), timedelta(hours=2))
    schedule = event(vigil, opens=timedelta(0), locks=timedelta(0), archives=None)
    assert edges(schedule, utc("2026-11-01T00:00"), utc("2026-11-02T00:00")) == [
        utc("2026-11-01T04:30"),  # 00:30 EDT
        utc("2026-11-01T06:30"),  # 01:30 EST, two hours later
    ]


def test_an_until_in_utc_ends_a_recurrence_in_local_time():
    rule = "FREQ=DAILY;UNTIL=20260310T220000Z"  # 18:00 EDT on the 10th, itself included
    daily = Occurrences(datetime(2026, 3, 6, 18), timedelta(hours=1), rule)
    schedule = event(daily, archives=None)
    assert schedule.last_lock == utc("2026-03-10T23:30")


def test_a_recurrence_without_an_end_is_never_archived():
    forever = Occurrences(datetime(2026, 3, 5, 18), timedelta(hours=1), "FREQ=WEEKLY")
    assert phase_at(event(forever), utc("2031-03-05T00:00")) == Phase.LOCKED


def test_a_yearly_occurrence_on_a_leap_day_is_found_years_ahead():
    leap = Occurrences(
        datetime(2024, 2, 29, 12), timedelta(hours=1), "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29"
    )
    schedule = event(leap, zone=UTC_ZONE)
    assert next_change(schedule, utc("2024-03-01T00:00")).at == utc("2028-02-29T11:45")


def test_a_room_without_windows_or_occurrences_never_changes():
    schedule = Schedule(UTC_ZONE, base=slow(5))
    assert next_change(schedule, utc("2026-01-01T00:00")) is None
    assert settings_at(schedule, utc("2026-01-01T00:00")) == slow(5)


def test_a_window_that_tightens_nothing_is_no_change():
    schedule = Schedule(UTC_ZONE, base=slow(90), windows=(NIGHT,))
    assert next_change(schedule, utc("2026-01-01T00:00")) is None


instants = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)).map(
    lambda t: t.replace(tzinfo=UTC)
)
zones = st.sampled_from([NEW_YORK, LONDON, LORD_HOWE, UTC_ZONE, ZoneInfo("Pacific/Apia")])
windows = st.builds(
    Window,
    st.times(),
    st.times(),
    st.frozensets(st.sampled_from(list(Weekday)), min_size=1),
    st.integers(1, 300).map(slow),
)
schedules = st.builds(
    Schedule,
    zones,
    base=st.integers(0, 60).map(slow),
    windows=st.lists(windows, max_size=3).map(tuple),
    occurrences=st.sampled_from([(), (AMA,)]),
)


@examples(max_examples=30)
@given(schedules, instants)
def test_nothing_laid_on_top_loosens(schedule, t):
    bare = Schedule(schedule.zone, schedule.base, occurrences=schedule.occurrences)
    ground, now = settings_at(bare, t), settings_at(schedule, t)
    assert tighten(ground, now) == tighten(now, now)


@examples(max_examples=30)
@given(schedules, instants)
def test_between_now_and_the_next_change_the_settings_stay(schedule, t):
    change = next_change(schedule, t)
    until = change.at if change else t + timedelta(days=30)
    assert until > t
    for part in range(5):
        between = t + (until - t) * part / 5
        assert settings_at(schedule, between) == settings_at(schedule, t)
    if change:
        assert settings_at(schedule, change.at) == change.settings != settings_at(schedule, t)
