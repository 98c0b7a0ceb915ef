"""The calendar of a room, against instants that were worked out by hand."""

import itertools
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from worker.policy.occurrences import Occurrence, Occurrences, dates, instant, started
from worker.policy.phases import Phase
from worker.policy.schedule import (
    Change,
    Schedule,
    Weekday,
    Window,
    changes_after,
    edges,
    next_change,
    openings,
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


HOUR = timedelta(hours=1)


def single(id_: str, starts: str, length: timedelta = HOUR) -> Occurrence:
    return Occurrence(id_, utc(starts), utc(starts) + length)


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


def test_a_window_that_ends_when_it_begins_lasts_until_the_next_day():
    monday = Window(time(9), time(9), frozenset({Weekday.MON}), slow(60))
    schedule = Schedule(UTC_ZONE, windows=(monday,))
    found = edges(schedule, utc("2026-03-01T00:00"), utc("2026-03-07T00:00"))
    assert found == [utc("2026-03-02T09:00"), utc("2026-03-03T09:00")]


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


def test_an_archived_room_has_no_quiet_hours_any_more():
    schedule = event(AMA, zone=UTC_ZONE, windows=(NIGHT,))
    archived = utc("2026-04-10T12:00")
    assert next_change(schedule, archived) is None
    assert settings_at(schedule, utc("2026-04-10T23:00")) == settings_at(schedule, archived)


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


def test_an_until_in_utc_ends_a_recurrence_before_a_start_that_lies_behind_it():
    rule = "FREQ=DAILY;UNTIL=20260310T213000Z"  # 17:30 EDT on the 10th: its 18:00 is out
    daily = Occurrences(datetime(2026, 3, 6, 18), timedelta(hours=1), rule)
    assert event(daily, archives=None).last_lock == utc("2026-03-09T23:30")


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=DAILY",
        "FREQ=DAILY;INTERVAL=3;BYMONTH=2,3",
        "FREQ=DAILY;INTERVAL=1500",
        "FREQ=DAILY;INTERVAL=999999999",
        "FREQ=WEEKLY",
        "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,TH;WKST=SU",
        "FREQ=WEEKLY;BYDAY=MO,WE,FR;BYSETPOS=1",  # the first week has begun already
        "FREQ=MONTHLY;BYDAY=-1FR",
    ],
)
def test_a_recurrence_without_an_end_has_the_dates_that_it_has_from_its_first_on(rule):
    starts = datetime(2026, 3, 5, 18)
    found = dates(Occurrences(starts, HOUR, rule), UTC_ZONE)
    bounded = dates(Occurrences(starts, HOUR, f"{rule};UNTIL=20370101T000000"), UTC_ZONE)
    every = list(bounded)
    begins = [starts + timedelta(weeks=weeks) for weeks in (-300, 0, 16, 112, 400)]
    for since in (*begins, datetime(2027, 1, 1), datetime(2035, 1, 1)):
        until = since + timedelta(days=360)
        expected = [t for t in every if since <= t <= until]
        assert found.between(since, until, inc=True) == expected
        assert found.between(since, until, inc=True) == expected


def test_a_recurrence_without_an_end_has_no_dates_ahead_of_its_first():
    line = Occurrences(datetime(2026, 3, 5, 18), HOUR, "FREQ=WEEKLY")
    found = event(line).between(utc("2020-01-01T00:00"), utc("2026-03-06T00:00"))
    assert [one.id for one in found] == ["2026-03-05T1800"]


@pytest.mark.parametrize("repeats", [None, "FREQ=WEEKLY;COUNT=2", "FREQ=WEEKLY"])
def test_a_date_can_be_added_or_left_out_alone(repeats):
    starts, next_one = datetime(2026, 3, 5, 18), datetime(2026, 3, 12, 18)
    added = event(Occurrences(starts, HOUR, repeats, rdate=(datetime(2026, 3, 7, 9),)))
    stretch = utc("2026-03-01T00:00"), utc("2026-03-08T00:00")
    assert [one.id for one in added.between(*stretch)] == ["2026-03-05T1800", "2026-03-07T0900"]
    out = event(Occurrences(starts, HOUR, repeats, exdate=(next_one,)))
    assert out.find("2026-03-12T1800") is None
    assert out.find("2026-03-05T1800") is not None


def test_what_begins_at_the_end_of_a_stretch_is_an_edge_of_it_and_at_its_beginning_is_none():
    schedule = Schedule(UTC_ZONE, windows=(NIGHT,))
    evening, morning = utc("2026-03-05T22:00"), utc("2026-03-06T07:00")
    assert edges(schedule, evening, morning) == [morning]
    assert edges(schedule, evening - timedelta(hours=1), evening) == [evening]


@pytest.mark.parametrize("days", [8, 60, 68, 400, 468, 1600])
def test_a_change_at_the_very_end_of_a_step_of_the_search_is_found(days):
    t = utc("2026-03-05T22:45")
    begins = t + timedelta(days=days)
    schedule = event(dated=(Occurrence("a", begins, begins + HOUR),), opens=timedelta(0))
    assert next_change(schedule, t).at == begins
    assert schedule.next_opening(t) == begins


def test_a_recurrence_without_an_end_is_never_archived():
    forever = Occurrences(datetime(2026, 3, 5, 18), timedelta(hours=1), "FREQ=WEEKLY")
    assert phase_at(event(forever), utc("2031-03-05T00:00")) == Phase.LOCKED


def test_a_yearly_occurrence_on_a_leap_day_is_found_years_ahead():
    leap = Occurrences(
        datetime(2024, 2, 29, 12), timedelta(hours=1), "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29"
    )
    schedule = event(leap, zone=UTC_ZONE)
    assert next_change(schedule, utc("2024-03-01T00:00")).at == utc("2028-02-29T11:45")


@pytest.mark.parametrize(
    ("since", "until", "found"),
    [
        ("2026-03-05T22:44:59", "2026-03-05T22:44:59", []),
        ("2026-03-05T22:45:00", "2026-03-05T22:45:00", ["2026-03-05T1800"]),
        ("2026-03-06T01:00:00", "2026-03-06T01:00:00", ["2026-03-05T1800"]),  # it ends just now
        ("2026-03-06T01:00:01", "2026-03-12T21:44:59", []),
        ("2026-03-01T00:00:00", "2026-03-12T21:45:00", ["2026-03-05T1800", "2026-03-12T1800"]),
    ],
)
def test_the_occurrences_of_a_stretch_are_those_whose_span_touches_it(since, until, found):
    touching = event(AMA).between(utc(since), utc(until))
    assert [one.id for one in touching] == found


def test_a_long_occurrence_is_found_at_its_end_and_a_long_lead_at_its_beginning():
    camp = Occurrences(datetime(2026, 3, 5, 18), timedelta(days=20))
    schedule = event(camp, opens=timedelta(days=20), locks=timedelta(days=20))
    for t in ("2026-02-13T23:00", "2026-04-14T22:59"):
        assert len(schedule.between(utc(t), utc(t))) == 1


def test_the_openings_of_a_stretch_are_in_the_order_of_their_instants():
    late, early = single("a", "2026-03-07T00:00"), single("b", "2026-03-06T00:00")
    schedule = event(dated=(late, early), opens=timedelta(0), locks=timedelta(0))
    assert openings(schedule, utc("2026-03-05T00:00"), utc("2026-03-08T00:00")) == [
        (early.starts, early.ends),
        (late.starts, late.ends),
    ]
    assert schedule.between(utc("2026-03-05T00:00"), utc("2026-03-08T00:00")) == [early, late]


def test_a_line_without_its_exdate_and_with_its_rdate_has_just_its_dates():
    line = Occurrences(
        datetime(2026, 3, 5, 18),
        HOUR,
        "FREQ=WEEKLY;COUNT=3",
        exdate=(datetime(2026, 3, 12, 18),),
        rdate=(datetime(2026, 3, 3, 9), datetime(2026, 3, 30, 9)),
    )
    schedule = event(line, opens=timedelta(0), locks=timedelta(0))
    ids = ["2026-03-03T0900", "2026-03-05T1800", "2026-03-19T1800", "2026-03-30T0900"]
    found = schedule.between(utc("2026-01-01T00:00"), utc("2027-01-01T00:00"))
    assert [one.id for one in found] == ids
    assert schedule.first_opening == utc("2026-03-03T14:00")
    assert schedule.last_lock == utc("2026-03-30T14:00")
    assert schedule.find("2026-03-12T1800") is None
    assert [schedule.find(id_) for id_ in ids] == found


def test_an_occurrence_is_found_by_its_id_wherever_it_comes_from():
    dated = single("ama-1", "2026-04-01T00:00")
    schedule = event(AMA, dated=(dated,))
    assert schedule.find("ama-1") == dated
    assert schedule.find("2026-03-12T1800").starts == utc("2026-03-12T22:00")
    for id_ in ("ama-2", "2026-03-12T1801", "2026-03-13T1800", "2026-03-19T1800", ""):
        assert schedule.find(id_) is None
    seconds = Occurrences(datetime(2026, 3, 5, 18, 0, 30), HOUR)
    assert event(seconds).find("2026-03-05T180030").id == "2026-03-05T180030"


def test_an_id_of_the_rules_names_its_local_start():
    assert started("2026-12-03T1800") == datetime(2026, 12, 3, 18)
    assert started("2026-12-03T180030") == datetime(2026, 12, 3, 18, 0, 30)
    assert started("1f2e3d4c-20261203T230000Z") is None


def test_two_lines_with_one_start_are_one_occurrence_and_the_later_line_counts():
    longer = Occurrences(datetime(2026, 3, 5, 18), timedelta(hours=3))
    schedule = event(AMA, longer)
    (found,) = schedule.between(utc("2026-03-05T23:00"), utc("2026-03-05T23:00"))
    assert found.ends == utc("2026-03-06T02:00")
    assert schedule.find("2026-03-05T1800") == found


def test_a_room_whose_calendar_is_empty_waits():
    schedule = event(dated=())
    assert schedule.eventful
    assert (schedule.first_opening, schedule.last_lock, schedule.archived_from) == (None,) * 3
    assert phase_at(schedule, utc("2030-01-01T00:00")) == Phase.BEFORE
    assert next_change(schedule, utc("2026-01-01T00:00")) is None
    assert schedule.next_opening(utc("2026-01-01T00:00")) is None


def test_a_calendars_room_goes_through_its_phases():
    one, other = single("a", "2026-03-05T18:00"), single("b", "2026-03-10T18:00")
    schedule = event(dated=(other, one), archives=timedelta(days=1))
    phases = {
        "2026-03-05T17:44": Phase.BEFORE,
        "2026-03-05T17:45": Phase.OPEN,
        "2026-03-05T19:30": Phase.LOCKED,
        "2026-03-10T17:45": Phase.OPEN,
        "2026-03-10T19:30": Phase.LOCKED,
        "2026-03-11T19:30": Phase.ARCHIVED,
    }
    assert {t: phase_at(schedule, utc(t)) for t in phases} == phases


def test_lines_and_a_calendar_of_one_room_count_together():
    before, after = single("a", "2026-02-01T18:00"), single("b", "2026-05-01T18:00")
    schedule = event(AMA, dated=(before, after))
    assert schedule.first_opening == utc("2026-02-01T17:45")
    assert schedule.last_lock == utc("2026-05-01T19:30")
    forever = Occurrences(datetime(2026, 3, 5, 18), HOUR, "FREQ=WEEKLY")
    assert event(forever, dated=(before,)).last_lock is None


def test_a_room_that_is_called_off_is_locked_from_the_first_and_archived_when_it_would_have_been():
    one = single("a", "2026-03-05T18:00")
    schedule = event(AMA).only(one, cancelled=True)
    assert phase_at(schedule, utc("2026-01-01T00:00")) == Phase.LOCKED
    assert phase_at(schedule, one.starts) == Phase.LOCKED
    assert next_change(schedule, utc("2026-01-01T00:00")).at == utc("2026-03-19T19:30")


@pytest.mark.parametrize(
    ("t", "opening"),
    [
        ("2026-01-01T00:00:00", "2026-03-05T22:45"),
        ("2026-03-05T22:44:59", "2026-03-05T22:45"),
        ("2026-03-05T22:45:00", "2026-03-12T21:45"),
        ("2026-03-12T21:45:00", None),
    ],
)
def test_the_next_opening_is_the_first_one_after_an_instant(t, opening):
    assert event(AMA).next_opening(utc(t)) == (opening and utc(opening))


def test_a_room_that_a_busy_chat_may_slow_has_no_cooldown_but_what_is_said():
    t = utc("2026-01-01T00:00")
    assert settings_at(Schedule(UTC_ZONE, paced=True), t) == slow(0)
    assert settings_at(Schedule(UTC_ZONE, base=slow(5), paced=True), t) == slow(5)
    assert settings_at(Schedule(UTC_ZONE), t) == Settings()


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("FREQ=DAILY;INTERVAL=0", "INTERVAL"),
        ("FREQ=MINUTELY", "BYHOUR"),
        ("FREQ=DAILY;UNTIL=2026-12-31", "UNTIL"),
        ("DTSTART:20260305T180000\nRRULE:FREQ=DAILY", "starts"),
    ],
)
def test_what_is_no_recurrence_of_ours_is_no_recurrence(rule, why):
    with pytest.raises(ValueError, match=why):
        dates(Occurrences(datetime(2026, 3, 5, 18), HOUR, rule), UTC_ZONE)


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
