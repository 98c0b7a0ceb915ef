"""What `usher plan` says of a stretch of time, and draws of it."""

import re
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import msgspec
import pytest
from dateutil.rrule import rrulestr
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from worker import rules
from worker.commands import plan as command
from worker.commands import timeline_svg
from worker.commands.svg import wide
from worker.policy.calls import CHANGE, Quota, loads
from worker.policy.clocks import clock_changes, odd_time
from worker.policy.conflicts import Trouble
from worker.policy.messages import Message, When
from worker.policy.occurrences import Occurrence, Occurrences, dates
from worker.policy.overrides import Edit, Hold, Overrides
from worker.policy.phases import Phase
from worker.policy.plan import Kind, plan
from worker.policy.rooms import Room
from worker.policy.schedule import Schedule, Timeline, Weekday, Window
from worker.policy.settings import Settings, WhoCanPost
from worker.whop import quota
from worker.words import words

NEW_YORK = ZoneInfo("America/New_York")
BERLIN = ZoneInfo("Europe/Berlin")
UTC_ZONE = ZoneInfo("UTC")
HOUR = timedelta(hours=1)
ROOT = Path(__file__).parent.parent


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def slow(seconds: int) -> Settings:
    return Settings(user_posts_cooldown_seconds=seconds)


def weekly(
    starts: str, repeats: str | None = "FREQ=WEEKLY", lasts: timedelta = HOUR
) -> Occurrences:
    return Occurrences(datetime.fromisoformat(starts), lasts, repeats)


def room(key: str = "ama", zone: ZoneInfo = NEW_YORK, **more) -> Room:
    its_own = {name: more.pop(name) for name in list(more) if name in ROOM_KEYS}
    return Room(key, key.title(), ("prod_a", "prod_b"), Schedule(zone, **more), **its_own)


ROOM_KEYS = {"messages", "one_room_per", "lead", "welcome"}


def told(found, *kinds: Kind) -> list[tuple[str, str]]:
    rows = [entry for entry in found.entries if not kinds or entry.kind in kinds]
    return [(f"{entry.at:%Y-%m-%dT%H:%M}", str(entry.kind)) for entry in rows]


def troubles(found) -> list[tuple[str, Trouble]]:
    return [(conflict.room, conflict.kind) for conflict in found.conflicts]


# --- what happens


def test_a_fortnight_over_a_clock_change_is_told_in_order():
    ama = room(
        opens=timedelta(minutes=15),
        locks=timedelta(minutes=30),
        occurrences=(weekly("2026-03-01T02:30"),),
        messages=(
            Message(when=When.BEFORE, text="Soon"),
            Message(when=When.OPENING, text="Come in", pin=True),
        ),
    )
    quiet = room(
        "lounge",
        BERLIN,
        windows=(Window(time(22), time(7), frozenset({Weekday.SAT}), slow(60)),),
    )
    found = plan([ama, quiet], utc("2026-03-02T00:00"), utc("2026-03-16T00:00"))
    assert [(e.room, *row) for e, row in zip(found.entries, told(found), strict=True)] == [
        ("lounge", "2026-03-07T21:00", "window_begins"),
        ("lounge", "2026-03-08T06:00", "window_ends"),
        ("ama", "2026-03-08T06:15", "message"),
        ("ama", "2026-03-08T07:15", "opens"),  # 02:30 is skipped: 03:30 EDT, and 15 minutes before
        ("ama", "2026-03-08T07:15", "message"),
        ("ama", "2026-03-08T09:00", "locks"),
        ("lounge", "2026-03-14T21:00", "window_begins"),
        ("ama", "2026-03-15T05:15", "message"),
        ("lounge", "2026-03-15T06:00", "window_ends"),
        ("ama", "2026-03-15T06:15", "opens"),
        ("ama", "2026-03-15T06:15", "message"),
        ("ama", "2026-03-15T08:00", "locks"),
    ]
    opens = [entry for entry in found.entries if entry.kind is Kind.OPENS]
    assert [entry.flags for entry in opens] == [
        ("02:30 is skipped that night; it happens at 03:30",),
        (),
    ]
    assert opens[0].changes == {"who_can_post": "everyone"}
    assert opens[0].about == "2026-03-08T0230"
    assert [(jump.at, jump.words) for jump in found.clock_changes] == [
        (utc("2026-03-08T07:00"), "clocks go forward an hour: 02:00 -> 03:00")
    ]


def test_the_end_of_the_stretch_is_not_part_of_it_and_its_beginning_is():
    lounge = room(zone=UTC_ZONE, windows=(Window(time(8), time(9), settings=slow(5)),))
    found = plan([lounge], utc("2026-03-02T08:00"), utc("2026-03-03T08:00"))
    assert told(found) == [
        ("2026-03-02T08:00", "window_begins"),
        ("2026-03-02T09:00", "window_ends"),
    ]
    assert [entry.changes for entry in found.entries] == [
        {"user_posts_cooldown_seconds": 5},
        {"user_posts_cooldown_seconds": 0},
    ]


def test_what_a_clock_change_repeats_is_flagged():
    ama = room(occurrences=(weekly("2026-11-01T01:30", None),))
    quiet = room("quiet", windows=(Window(time(1, 15), time(5), settings=slow(5)),))
    found = plan([ama, quiet], utc("2026-11-01T04:00"), utc("2026-11-01T09:00"))
    assert [(entry.at, entry.flags) for entry in found.entries if entry.flags] == [
        (utc("2026-11-01T05:15"), ("01:15 comes twice that night; the first is meant",)),
        (utc("2026-11-01T05:30"), ("01:30 comes twice that night; the first is meant",)),
    ]
    assert [jump.words for jump in found.clock_changes] == [
        "clocks go back an hour: 02:00 -> 01:00"
    ]


@pytest.mark.parametrize(
    ("zone", "since", "at", "words"),
    [
        (
            "Australia/Lord_Howe",
            "2026-10-01",
            "2026-10-03T15:30",
            "forward half an hour: 02:00 -> 02:30",
        ),
        (
            "Pacific/Apia",
            "2011-12-25",
            "2011-12-30T10:00",
            "forward 24 hours: Fri 00:00 -> Sat 00:00",
        ),
        ("Europe/London", "2026-10-20", "2026-10-25T01:00", "back an hour: 02:00 -> 01:00"),
    ],
)
def test_clock_changes_are_found_to_the_second(zone, since, at, words):
    begin = utc(since)
    (jump,) = clock_changes(ZoneInfo(zone), begin, begin + timedelta(days=14))
    assert (jump.at, jump.words) == (utc(at), f"clocks go {words}")
    assert clock_changes(ZoneInfo(zone), jump.at, jump.at + HOUR) == (jump,)
    assert clock_changes(ZoneInfo(zone), jump.at - HOUR, jump.at) == ()


def test_a_time_that_a_whole_day_is_left_out_of_names_its_day():
    words = odd_time(datetime(2011, 12, 30, 18), ZoneInfo("Pacific/Apia"))
    assert words == "18:00 is skipped that night; it happens at 18:00 on Sat 31 Dec"
    assert odd_time(datetime(2011, 12, 29, 18), ZoneInfo("Pacific/Apia")) is None


def test_an_occurrence_with_a_room_of_its_own_is_made_opened_locked_and_archived():
    ama = room(
        occurrences=(weekly("2026-06-04T18:00"),),
        zone=UTC_ZONE,
        opens=timedelta(minutes=15),
        archives=timedelta(days=2),
        one_room_per="occurrence",
        lead=timedelta(days=3),
        welcome="Hello",
        messages=(Message(when=When.LOCK, text="Bye"),),
    )
    found = plan([ama], utc("2026-06-10T00:00"), utc("2026-06-15T00:00"))
    assert [(*row, e.room) for e, row in zip(found.entries, told(found), strict=True)] == [
        ("2026-06-11T17:45", "opens", "ama/2026-06-11T1800"),
        ("2026-06-11T19:00", "locks", "ama/2026-06-11T1800"),
        ("2026-06-11T19:00", "message", "ama/2026-06-11T1800"),
        ("2026-06-13T19:00", "archived", "ama/2026-06-11T1800"),
    ]
    later = plan([ama], utc("2026-06-15T00:00"), utc("2026-06-16T00:00"))
    (made,) = later.entries
    assert (made.at, made.kind, made.room) == (
        utc("2026-06-15T17:45"),
        Kind.MADE,
        "ama/2026-06-18T1800",
    )
    assert made.changes == {"who_can_post": "admins"}
    assert made.calls.count("POST /experiences/{id}/attach") == 2
    assert made.calls[-2:] == ("GET /messages", "POST /messages")
    assert found.conflicts == later.conflicts == ()


def test_a_date_of_a_calendar_is_called_by_its_local_time_and_not_by_its_id():
    one = Occurrence("573a9c468b3a", utc("2026-06-11T22:00"), utc("2026-06-11T23:00"))
    found = plan(
        [room(dated=(one,), zone=NEW_YORK)], utc("2026-06-10T00:00"), utc("2026-06-12T00:00")
    )
    assert {entry.about for entry in found.entries} == {"2026-06-11T1800"}


def test_a_room_of_an_occurrence_keeps_its_windows_from_when_it_is_made_until_its_archive():
    ama = room(
        dated=(Occurrence("a", utc("2026-06-11T18:00"), utc("2026-06-11T19:00")),),
        zone=UTC_ZONE,
        windows=(Window(time(3), time(4), settings=slow(9)),),
        archives=timedelta(days=1),
        one_room_per="occurrence",
        lead=timedelta(days=1),
    )
    found = plan([ama], utc("2026-06-01T00:00"), utc("2026-06-30T00:00"))
    assert told(found) == [
        ("2026-06-10T18:00", "made"),
        ("2026-06-11T03:00", "window_begins"),
        ("2026-06-11T04:00", "window_ends"),
        ("2026-06-11T18:00", "opens"),
        ("2026-06-11T19:00", "locks"),
        ("2026-06-12T03:00", "window_begins"),
        ("2026-06-12T04:00", "window_ends"),
        ("2026-06-12T19:00", "archived"),
    ]
    assert found.entries[-1].calls == (
        *CHANGE,
        *["POST /experiences/{id}/detach"] * 2,
        "PATCH /experiences/{id}",
    )


def test_a_hold_is_told_with_its_end_and_what_it_beats_is_flagged():
    lounge = room("lounge", UTC_ZONE, windows=(Window(time(8), time(9), settings=slow(5)),))
    hold = Hold(utc("2026-03-02T07:00"), utc("2026-03-02T10:00"), "ana", "raid", settings=slow(99))
    edit = Edit(utc("2026-03-01T00:00"), utc("2026-03-02T12:00"), slow(7))
    found = plan(
        [lounge],
        utc("2026-03-02T00:00"),
        utc("2026-03-03T00:00"),
        overrides={"lounge": Overrides(edit=edit, holds=(hold,))},
    )
    assert [(str(e.kind), e.about, dict(e.changes), e.flags) for e in found.entries] == [
        ("hold_begins", "by ana: raid", {"user_posts_cooldown_seconds": 99}, ()),
        ("window_begins", "08:00-09:00", {}, ("ana holds the room: that is stronger",)),
        ("window_ends", "08:00-09:00", {}, ("ana holds the room: that is stronger",)),
        ("hold_ends", "by ana: raid", {"user_posts_cooldown_seconds": 7}, ()),
        ("edit_ends", "made by hand on Whop", {"user_posts_cooldown_seconds": 0}, ()),
    ]


@st.composite
def some_rooms(draw):
    hours = st.builds(time, st.integers(0, 23), st.sampled_from([0, 15, 30]))
    windows = st.lists(
        st.builds(
            Window,
            hours,
            hours,
            st.frozensets(st.sampled_from(Weekday), min_size=1),
            st.builds(slow, st.integers(1, 90)),
        ),
        max_size=3,
    )
    starts = st.datetimes(datetime(2026, 2, 1), datetime(2026, 4, 1))
    repeats = st.sampled_from([None, "FREQ=DAILY;COUNT=9", "FREQ=WEEKLY"])
    lines = st.lists(st.builds(Occurrences, starts, st.just(3 * HOUR), repeats), max_size=2)
    margin = st.timedeltas(timedelta(0), timedelta(days=1))
    return room(
        zone=draw(st.sampled_from([NEW_YORK, BERLIN, UTC_ZONE])),
        windows=tuple(draw(windows)),
        occurrences=tuple(draw(lines)),
        opens=draw(margin),
        locks=draw(margin),
        archives=draw(st.none() | margin),
    )


@examples(max_examples=60)
@given(some_rooms(), st.datetimes(datetime(2026, 2, 20), datetime(2026, 3, 20)))
def test_the_changes_of_a_plan_are_those_by_which_the_worker_goes(one, since):
    begin = since.replace(tzinfo=UTC)
    until = begin + timedelta(days=10)
    found = plan([one], begin, until)
    told_of = [(entry.at, dict(entry.changes)) for entry in found.entries if entry.changes]
    line = Timeline(one.schedule, begin - timedelta.resolution, until)
    archived = one.schedule.archived_from or until
    real = [c for c in line.changes() if c.at < until and c.at <= archived]
    assert [at for at, _ in told_of] == [change.at for change in real]
    for (_, changes), change in zip(told_of, real, strict=True):
        assert all(getattr(change.settings, name) == value for name, value in changes.items())


@examples(max_examples=200)
@given(
    starts=st.datetimes(datetime(2025, 1, 1), datetime(2026, 1, 1)).map(
        lambda t: t.replace(microsecond=0)
    ),
    rule=st.sampled_from(
        ["FREQ=WEEKLY", "freq=daily", "FREQ=DAILY;BYDAY=MO,FR", "FREQ=WEEKLY;BYMONTH=3,7"]
    ),
    interval=st.sampled_from(["", ";INTERVAL=2", ";INTERVAL=3", ";INTERVAL=2000"]),
    more=st.sampled_from(
        ["", ";WKST=SU", ";BYDAY=MO,SU;WKST=SU", ";BYHOUR=9,17", ";BYDAY=TU,TH;BYSETPOS=1"]
    ),
    days=st.integers(-40, 900),
)
def test_an_endless_series_has_the_same_dates_wherever_one_begins_to_look(
    starts, rule, interval, more, days
):
    if "BYDAY" in rule and "BYDAY" in more:
        more = ""
    line = Occurrences(starts, HOUR, rule + interval + more)
    since = starts + timedelta(days=days)
    until = since + timedelta(days=60)
    plain = rrulestr(line.repeats, dtstart=starts)
    assert dates(line, UTC_ZONE).between(since, until, inc=True) == plain.between(
        since, until, inc=True
    )
    assert next(iter(dates(line, UTC_ZONE))) == next(iter(plain))


# --- what is wrong


def fortnight(*rooms: Room, overrides=None):
    return plan(rooms, utc("2026-06-01T00:00"), utc("2026-06-15T00:00"), overrides=overrides or {})


def test_two_occurrences_that_overlap_are_named_with_their_instants():
    lines = (weekly("2026-06-02T18:00", None), weekly("2026-06-02T18:30", None))
    (conflict,) = fortnight(room(zone=UTC_ZONE, occurrences=lines)).conflicts
    assert conflict.kind is Trouble.OVERLAP
    assert conflict.at == (utc("2026-06-02T18:30"), utc("2026-06-02T19:00"))
    assert "2026-06-02T1830 starts Tue 2 Jun 2026 18:30 UTC, before" in conflict.text


def test_margins_that_overlap_are_named_as_such():
    lines = (weekly("2026-06-02T18:00", None), weekly("2026-06-02T19:10", None))
    touching = room(zone=UTC_ZONE, occurrences=lines, opens=timedelta(minutes=10))
    assert fortnight(touching).conflicts == ()
    (conflict,) = fortnight(room(zone=UTC_ZONE, occurrences=lines, opens=HOUR)).conflicts
    assert conflict.text.startswith("only the time before and after them overlaps")
    assert conflict.at == (utc("2026-06-02T18:10"), utc("2026-06-02T19:00"))


def test_an_occurrence_within_a_longer_one_does_not_hide_a_third():
    lines = (
        weekly("2026-06-02T10:00", None, 9 * HOUR),
        weekly("2026-06-02T11:00", None),
        weekly("2026-06-02T15:00", None),
    )
    found = fortnight(room(zone=UTC_ZONE, occurrences=lines))
    assert [conflict.at[0].hour for conflict in found.conflicts] == [11, 15]


def test_occurrences_in_rooms_of_their_own_do_not_overlap():
    lines = (weekly("2026-06-02T18:00", None), weekly("2026-06-02T18:30", None))
    assert fortnight(room(occurrences=lines, one_room_per="occurrence")).conflicts == ()


@pytest.mark.parametrize(
    ("base", "window", "why"),
    [
        (slow(60), Window(time(8), time(9), settings=slow(30)), "tightens nothing"),
        (slow(0), Window(time(8), time(9), frozenset(), slow(30)), "it never holds"),
        (
            Settings(who_can_post=WhoCanPost.ADMINS),
            Window(time(8), time(9), settings=slow(30)),
            "only the team may write",
        ),
    ],
)
def test_a_window_that_nobody_ever_feels_is_named(base, window, why):
    (conflict,) = fortnight(room(base=base, windows=(window,))).conflicts
    assert conflict.kind is Trouble.WINDOW_NEVER_HOLDS
    assert why in conflict.text
    assert "windows[0]" in conflict.text


def test_a_window_that_is_felt_only_while_the_room_is_open_is_not_named():
    window = Window(time(8), time(9), settings=slow(30))
    ama = room(windows=(window,), occurrences=(weekly("2026-01-01T18:00"),))
    assert fortnight(ama).conflicts == ()


def test_a_window_within_a_wider_one_that_is_as_tight_is_named_and_of_two_alike_the_second():
    night = Window(time(22), time(7), settings=slow(60))
    within = Window(time(23), time(6), frozenset({Weekday.MON}), slow(60))
    tighter = Window(time(23), time(6), settings=slow(90))
    (conflict,) = fortnight(room(windows=(within, tighter, night))).conflicts
    assert conflict.text.startswith("windows[0], 23:00-06:00, adds nothing to the window")
    (conflict,) = fortnight(room(windows=(night, night))).conflicts
    assert conflict.text.startswith("windows[1]")


def test_a_window_that_a_clock_change_takes_away_is_named_with_its_day():
    sliver = Window(time(2, 45), time(3, 15), settings=slow(60))
    found = plan([room(windows=(sliver,))], utc("2026-03-01T00:00"), utc("2026-03-15T00:00"))
    (conflict,) = found.conflicts
    assert (conflict.kind, conflict.at) == (Trouble.WINDOW_SKIPPED, (utc("2026-03-08T07:00"),))
    assert "does not hold on Sun 8 Mar" in conflict.text


def test_an_archive_before_a_lock_is_named():
    once = weekly("2026-06-02T18:00", None)
    early = room(zone=UTC_ZONE, occurrences=(once,), archives=-timedelta(minutes=30))
    (conflict,) = fortnight(early).conflicts
    assert conflict.kind is Trouble.ARCHIVED_TOO_EARLY
    assert conflict.at == (utc("2026-06-02T18:30"), utc("2026-06-02T19:00"))


def test_an_archive_of_a_room_that_a_person_holds_open_is_named():
    ama = room(zone=UTC_ZONE, occurrences=(weekly("2026-06-02T18:00", None),), archives=HOUR)
    hold = Hold(utc("2026-06-02T18:30"), utc("2026-06-03T00:00"), "ana", phase=Phase.OPEN)
    found = fortnight(ama, overrides={"ama": Overrides(holds=(hold,))})
    assert troubles(found) == [("ama", Trouble.ARCHIVED_TOO_EARLY)]
    assert "ana would have it open" in found.conflicts[0].text


def test_an_archive_after_a_series_without_an_end_is_named():
    ama = room(occurrences=(weekly("2026-06-02T18:00"),), archives=HOUR)
    assert troubles(fortnight(ama)) == [("ama", Trouble.NEVER_ARCHIVED)]


def test_messages_out_of_place_are_named():
    soon = Message(when=When.BEFORE, text="Soon", ahead=timedelta(days=2))
    lock = Message(when=When.LOCK, text="Bye")
    daily = weekly("2026-06-02T18:00", "FREQ=DAILY;COUNT=2")
    once = weekly("2026-06-02T18:00", None)
    found = fortnight(
        room("no_dates", messages=(lock,)),
        room("late", occurrences=(once,), one_room_per="occurrence", lead=HOUR, messages=(soon,)),
        room("gone", occurrences=(once,), archives=timedelta(0), messages=(lock,)),
        room("early", occurrences=(daily,), messages=(soon,)),
        room("fine", occurrences=(once,), archives=HOUR, messages=(soon, lock)),
    )
    kind = Trouble.MESSAGE_OUT_OF_PLACE
    assert troubles(found) == [(key, kind) for key in ("no_dates", "late", "gone", "early")]
    assert "should be written 2 days before an opening, but the room is made an hour before" in (
        found.conflicts[1].text
    )


def test_an_event_room_without_a_coming_occurrence_is_named():
    found = fortnight(
        room("past", UTC_ZONE, occurrences=(weekly("2026-05-01T18:00", None),)),
        room("empty", dated=()),
        room("coming", occurrences=(weekly("2027-06-02T18:00", None),)),
    )
    assert troubles(found) == [(key, Trouble.NOTHING_AHEAD) for key in ("past", "empty")]
    assert "the last one locked Fri 1 May 2026 19:00 UTC" in found.conflicts[0].text
    assert "its calendar holds none" in found.conflicts[1].text


# --- what it asks of Whop


def test_calls_are_counted_by_operation_with_the_worst_minute():
    rooms = [
        room(f"r{n}", UTC_ZONE, windows=(Window(time(8), time(9), settings=slow(5)),))
        for n in range(3)
    ]
    late = room("late", UTC_ZONE, windows=(Window(time(8, 0, 59), time(9, 1), settings=slow(5)),))
    found = plan([*rooms, late], utc("2026-03-02T00:00"), utc("2026-03-03T00:00"))
    assert [(load.operation, load.total, load.most) for load in found.calls] == [
        ("GET /chat_channels/{id}", 8, 4),
        ("PATCH /chat_channels/{id}", 8, 4),
    ]
    assert found.calls[0].at == utc("2026-03-02T08:00")
    assert found.calls[0].share == 4 / 600
    assert found.calls[0].late == 0


def test_what_does_not_fit_into_the_quota_goes_late():
    t = utc("2026-03-02T08:00")
    (load,) = loads([(t, ("PATCH /x",) * 10)], Quota(calls=5, seconds=60, used=4))
    assert (load.total, load.most, load.share) == (10, 10, 2.0)
    assert (load.late, load.late_at) == (120, t)  # 4 at once, 4 a minute later, 2 a minute after
    asked = [(t, ("PATCH /x",) * 4), (t + timedelta(seconds=59), ("PATCH /x",))]
    (load,) = loads(asked, Quota(calls=5, seconds=60, used=4))
    assert (load.late, load.late_at, load.most) == (1, t + timedelta(seconds=59), 5)
    asked = [(t, ("PATCH /x",) * 2), (t + timedelta(seconds=60), ("PATCH /x",) * 3)]
    (load,) = loads(asked, Quota(calls=5, seconds=60, used=4))
    assert (load.most, load.at, load.late) == (3, t + timedelta(seconds=60), 0)


def test_the_plan_reckons_with_the_quota_that_the_client_keeps():
    calls, seconds = quota.DEFAULT
    assert Quota() == Quota(calls, seconds, int(calls * quota.USED))


def test_what_happens_in_each_of_several_cohorts_is_counted_for_each():
    course = room("course", UTC_ZONE, windows=(Window(time(8), time(9), settings=slow(5)),))
    found = plan(
        [course], utc("2026-03-02T00:00"), utc("2026-03-03T00:00"), standing={"course": 40}
    )
    assert [(load.total, load.most) for load in found.calls] == [(80, 40)] * 2


class Counted(tuple):  # noqa: SLOT001 - it counts
    """Occurrences of a calendar that count how often they are gone through."""

    passes = 0

    def __iter__(self):
        Counted.passes += 1
        return super().__iter__()


def test_a_plan_goes_through_a_rooms_dates_a_fixed_number_of_times():
    """However many of them there are, and however long the plan is."""

    def cost(dates: int) -> int:
        begin = utc("2026-06-01T00:00")
        ones = (
            Occurrence(f"o{n}", begin + n * 2 * HOUR, begin + n * 2 * HOUR + HOUR)
            for n in range(dates)
        )
        Counted.passes = 0
        plan([room(dated=Counted(ones))], begin, begin + timedelta(days=60))
        return Counted.passes

    assert cost(10) == cost(500) <= 10


def test_rooms_that_are_alike_share_the_work():
    """Five thousand rooms of some twenty sorts: what they set is laid out once a sort."""
    from worker.policy import schedule

    rooms = [
        room(f"r{n}", windows=(Window(time(n % 24), time(9, 30), settings=slow(100 + n % 20)),))
        for n in range(5000)
    ]
    schedule._tighten.cache_clear()
    schedule._ground.cache_clear()
    found = plan(rooms, utc("2026-06-01T00:00"), utc("2026-06-02T00:00"))
    assert len(found.entries) >= 5000
    assert schedule._tighten.cache_info().misses <= 40
    assert schedule._ground.cache_info().misses <= 40


# --- the command


RULES = """
account = "biz_Test"
timezone = "America/New_York"
[rooms.lounge]
name = "The <Lounge> & Bar"
products = ["prod_a"]
[[rooms.lounge.windows]]
days = ["sat"]
from = 22:00:00
to = 07:00:30
user_posts_cooldown_seconds = 60
[rooms.ama]
name = "Live AMA"
products = ["prod_b"]
timezone = "Europe/Berlin"
opens = "15m"
occurrences = [{ starts = 2026-03-05T18:00:00, lasts = "90m", repeats = "FREQ=WEEKLY" }]
"""


def shown(capfdbinary, **more) -> bytes:
    asked = {"room": None, "as_json": False, "svg": None, "overrides": {}, "days": 14, **more}
    found = asked.pop("rules", None) or rules.parse(RULES)
    command.show(found, since=utc("2026-03-02T05:00"), **asked)
    return capfdbinary.readouterr().out


def test_the_text_has_a_line_for_each_entry_in_local_time_and_utc(capfdbinary):
    text = shown(capfdbinary).decode()
    cooldown, all_post, few_post = (
        "user_posts_cooldown_seconds",
        'who_can_post = "everyone"',
        'who_can_post = "admins"',
    )
    jump = "clocks go forward an hour: 02:00 -> 03:00"
    worst = "Thu 05 Mar 2026 11:45:00 EST (16:45:00 UTC): 1 x GET /chat_channels/{id}"
    get, patch = "GET /chat_channels/{id}  ", "PATCH /chat_channels/{id}"
    assert text.splitlines() == [
        "From Mon 02 Mar 2026 00:00:00 EST to Mon 16 Mar 2026 01:00:00 EDT",
        "Each line has the room's own time; the days are those of America/New_York.",
        "",
        "Thursday 5 March 2026",
        f"  17:45 CET       16:45 UTC     ama     opens          2026-03-05T1800  {all_post}",
        f"  19:30 CET       18:30 UTC     ama     locks          2026-03-05T1800  {few_post}",
        "",
        "Saturday 7 March 2026",
        f"  22:00 EST       Sun 03:00 UTC lounge  window begins  22:00-07:00  {cooldown} = 60",
        "",
        "Sunday 8 March 2026",
        f"  03:00 EDT       07:00 UTC     America/New_York: {jump}",
        f"  07:00:30 EDT    11:00:30 UTC  lounge  window ends    22:00-07:00  {cooldown} = 0",
        "",
        "Thursday 12 March 2026",
        f"  17:45 CET       16:45 UTC     ama     opens          2026-03-12T1800  {all_post}",
        f"  19:30 CET       18:30 UTC     ama     locks          2026-03-12T1800  {few_post}",
        "",
        "Saturday 14 March 2026",
        f"  22:00 EDT       Sun 02:00 UTC lounge  window begins  22:00-07:00  {cooldown} = 60",
        "",
        "Sunday 15 March 2026",
        f"  07:00:30 EDT    11:00:30 UTC  lounge  window ends    22:00-07:00  {cooldown} = 0",
        "",
        "16 calls to Whop; of each operation Whop takes 600 a minute.",
        f"The worst minute begins {worst}, 0.2% of the quota.",
        f"  {get}       8 in all, at most 1 in a minute",
        f"  {patch}       8 in all, at most 1 in a minute",
    ]


def test_the_text_names_conflicts_long_messages_and_what_does_not_fit():
    said = Message(when=When.OPENING, text="Welcome\nto " + "the room " * 20, pin=True)
    twice = (weekly("2026-06-02T18:00", None), weekly("2026-06-02T18:30", None))
    rooms = [room(f"r{n}", UTC_ZONE, occurrences=twice, messages=(said,)) for n in range(3)]
    found = plan(rooms, utc("2026-06-01T00:00"), utc("2026-06-15T00:00"), quota=Quota(2, 60, 2))
    text = "\n".join(command.lines(rooms, found))
    cut = "Welcome to the room the room the room the room the room t..."
    assert f'message        pinned: "{cut}"' in text
    assert "\n3 conflicts:\n  r0: 2026-06-02T1830 starts" in text
    assert "It does not fit: of POST /messages, asked for Tue 02 Jun 2026 18:00:00 UTC, " in text
    assert "the last call goes 60 s late. Locks go first." in text


def test_a_plan_of_nothing_says_so(capfdbinary):
    plain = 'account = "biz_A"\n[rooms.vip]\nname = "VIP"\nproducts = ["prod_a"]\n'
    text = shown(capfdbinary, rules=rules.parse(plain))
    assert b"Nothing happens by itself.\n\n0 calls to Whop" in text


def test_the_json_is_a_stable_document(capfdbinary):
    found = msgspec.json.decode(shown(capfdbinary, as_json=True, room="lounge"))
    keys = ["from", "until", "entries", "conflicts", "clock_changes", "calls", "money_back"]
    assert list(found) == [*keys, "keys"]
    assert (found["from"], found["until"]) == ("2026-03-02T05:00:00Z", "2026-03-16T05:00:00Z")
    assert found["entries"][0] == {
        "at": "2026-03-08T03:00:00Z",
        "local": "2026-03-07T22:00:00-05:00",
        "zone": "America/New_York",
        "room": "lounge",
        "kind": "window_begins",
        "about": "22:00-07:00",
        "pinned": False,
        "changes": {"user_posts_cooldown_seconds": 60},
        "flags": [],
        "calls": ["GET /chat_channels/{id}", "PATCH /chat_channels/{id}"],
    }
    assert found["clock_changes"] == [
        {
            "at": "2026-03-08T07:00:00Z",
            "zone": "America/New_York",
            "before": "2026-03-08T02:00:00",
            "after": "2026-03-08T03:00:00",
            "text": "clocks go forward an hour: 02:00 -> 03:00",
        }
    ]
    assert found["calls"]["total"] == 8
    assert found["calls"]["quota"] == {"calls": 600, "seconds": 60.0, "used": 570}
    assert found["calls"]["operations"][0] == {
        "operation": "GET /chat_channels/{id}",
        "total": 4,
        "most": 1,
        "at": "2026-03-08T03:00:00Z",
        "share": 1 / 600,
        "late": 0.0,
        "late_at": "2026-03-08T03:00:00Z",
    }


def test_conflicts_in_json_have_their_instants():
    twice = (weekly("2026-06-02T18:00", None), weekly("2026-06-02T18:30", None))
    found = fortnight(room(zone=UTC_ZONE, occurrences=twice))
    (conflict,) = msgspec.to_builtins(command.document(found, ())["conflicts"])
    assert conflict["kind"] == "overlap"
    assert list(conflict["at"]) == ["2026-06-02T18:30:00Z", "2026-06-02T19:00:00Z"]


def test_an_unknown_room_is_refused_with_the_known_ones(capfdbinary):
    with pytest.raises(command.UnknownRoom, match="no room 'bar'; they have lounge, ama"):
        shown(capfdbinary, room="bar")
    with pytest.raises(command.UnknownRoom, match="ask for --room ama"):
        shown(capfdbinary, room="ama/2026-03-05T1800")


def test_one_of_the_rooms_of_a_series_can_be_asked_for(capfdbinary):
    ama = room(occurrences=(weekly("2026-03-05T18:00"),), one_room_per="occurrence")
    found = rules.Rules("biz_A", (ama,))
    text = shown(capfdbinary, rules=found, room="ama/2026-03-12T1800").decode()
    assert "ama/2026-03-12T1800  opens" in text
    assert "2026-03-05" not in text


# --- the drawing


def texts(svg: ET.Element) -> list[tuple[float, float, float, float, str]]:
    """Return the box of each text: left, top, right, bottom."""
    found = []
    for text in svg.iter("{http://www.w3.org/2000/svg}text"):
        x, y, size = (float(text.get(name, "0")) for name in ("x", "y", "font-size"))
        width = wide(text.text or "", size)
        left = x - width if text.get("text-anchor") == "end" else x
        found.append((left, y - 0.75 * size, left + width, y + 0.2 * size, text.text or ""))
    return found


def corners(shape: ET.Element) -> list[tuple[float, float]]:
    get = {name: float(value) for name, value in shape.items() if re.fullmatch(r"-?[\d.]+", value)}
    if shape.tag.endswith("rect"):
        x, y = get["x"], get["y"]
        return [(x, y), (x + get["width"], y + get["height"])]
    if shape.tag.endswith("line"):
        return [(get["x1"], get["y1"]), (get["x2"], get["y2"])]
    if shape.tag.endswith("polygon"):
        return [tuple(map(float, p.split(","))) for p in (shape.get("points") or "").split()]
    return []


def check_geometry(svg: ET.Element) -> None:
    places = [(x, y) for shape in svg.iter() for x, y in corners(shape)]
    boxes = texts(svg)
    places += [corner for a, b, c, d, _ in boxes for corner in ((a, b), (c, d))]
    assert all(0 <= x <= 1123.05 and 0 <= y <= 794.05 for x, y in places)
    for n, (left, top, right, bottom, text) in enumerate(boxes):
        for other in boxes[:n]:
            apart = left >= other[2] or right <= other[0] or top >= other[3] or bottom <= other[1]
            assert apart, (text, other[4])


def daily(hour: int) -> Occurrences:
    return weekly(f"2026-03-01T{hour:02}:30", "FREQ=DAILY")


def drawn(rooms, since: str, days: int) -> ET.Element:
    begin = utc(since)
    found = plan(rooms, begin, begin + timedelta(days=days))
    zone = command.page_zone(rooms)
    return ET.fromstring(  # noqa: S314 - our own
        timeline_svg.drawing("biz_<&>Test", rooms, found, zone, begin)
    )


def many(svg: ET.Element, kind: str) -> int:
    return sum(shape.get("class") == kind for shape in svg.iter())


@pytest.mark.parametrize("days", [1, 3, 14, 31, 100, 365])
@pytest.mark.parametrize("since", ["2026-11-22T18:00", "2026-12-01T05:00"])
def test_the_drawing_of_the_shipped_rooms_stays_on_its_page_and_no_texts_overlap(since, days):
    svg = drawn(rules.load(ROOT / "rooms.toml").rooms, since, days)
    assert (svg.get("width"), svg.get("height")) == ("297mm", "210mm")
    check_geometry(svg)


@pytest.mark.parametrize("count", [1, 9, 35, 200])
def test_the_drawing_of_many_rooms_leaves_out_what_has_no_place_and_counts_it(count):
    rooms = [
        room(f"room-{n}", [NEW_YORK, BERLIN][n % 2], occurrences=(daily(n % 24),))
        for n in range(count)
    ]
    svg = drawn(rooms, "2026-03-01T00:00", 30)
    check_geometry(svg)
    said = [text for *_, text in texts(svg)]
    assert ("and 165 more rooms" in said) == (count == 200)


def test_the_drawing_shows_openings_windows_messages_archives_and_clock_changes():
    ama = room(
        occurrences=(weekly("2026-03-05T18:00"),),
        one_room_per="occurrence",
        archives=timedelta(days=1),
        lead=timedelta(days=2),
        messages=(Message(when=When.OPENING, text="Come in"),),
    )
    night = Window(time(22), time(7), frozenset({Weekday.FRI}), slow(60))
    lounge = room("lounge", windows=(night,))
    team = room("team", base=Settings(who_can_post=WhoCanPost.ADMINS))
    svg = drawn([ama, lounge, team], "2026-03-02T05:00", 14)
    check_geometry(svg)
    kinds = ("open", "window", "message", "made", "archived", "jump", "standing", "team")
    assert [many(svg, kind) for kind in kinds] == [2, 2, 2, 2, 2, 1, 1, 1]
    said = [text for *_, text in texts(svg)]
    assert {"biz_<&>Test", "Ama", "18:00-19:00", "clocks +1:00, America/New_York"} <= set(said)
    assert {"Mon", "2 Mar", "printed 2 March 2026"} <= set(said)


def test_the_labels_of_clock_changes_at_nearly_one_time_do_not_overlap():
    zones = ("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles")
    rooms = [room(zone[-6:], ZoneInfo(zone)) for zone in zones]
    svg = drawn(rooms, "2026-03-02T05:00", 14)
    check_geometry(svg)
    assert many(svg, "jump") == 4
    assert sum("clocks +1:00" in text for *_, text in texts(svg)) == 3  # the fourth has no place


def test_a_name_that_is_too_long_for_its_column_is_cut():
    one = Room("a", "A room with a name that goes on for ever", ("prod_a",), Schedule(UTC_ZONE))
    svg = drawn([one], "2026-03-02T00:00", 2)
    check_geometry(svg)
    (name,) = [text for *_, text in texts(svg) if text.startswith("A room")]
    assert name.endswith("...")


def test_a_bar_is_as_long_as_the_room_is_open():
    once = weekly("2026-03-02T06:00", None, 12 * HOUR)
    svg = drawn([room(zone=UTC_ZONE, occurrences=(once,))], "2026-03-02T00:00", 2)
    (bar,) = (shape for shape in svg.iter() if shape.get("class") == "open")
    (left, _), (right, _) = corners(bar)
    whole = timeline_svg.RIGHT - timeline_svg.LEFT
    assert left == pytest.approx(timeline_svg.LEFT + whole / 8, abs=0.1)
    assert right - left == pytest.approx(whole / 4, abs=0.1)


def test_what_xml_has_no_character_for_is_left_out_of_a_drawing():
    one = Room("a", "Bell \x07 room \ud7ff", ("prod_a",), Schedule(UTC_ZONE))
    names = [text for *_, text in texts(drawn([one], "2026-03-02T00:00", 2))]
    assert any(name.startswith("Bell   room") for name in names)


def test_a_drawing_that_cannot_be_written_is_refused(tmp_path, capfdbinary):
    path = tmp_path / "there" / "plan.svg"
    with pytest.raises(command.Unwritable, match=r"plan\.svg cannot be written: No such file"):
        shown(capfdbinary, svg=path)
    path.parent.mkdir()
    shown(capfdbinary, svg=path)
    check_geometry(ET.fromstring(path.read_text()))  # noqa: S314 - our own


def test_a_day_of_a_plan_that_a_clock_change_lengthens_has_a_longer_column():
    svg = drawn([room()], "2026-10-31T04:00", 3)
    weekend = [shape for shape in svg.iter() if shape.get("class") == "weekend"]
    widths = [float(shape.get("width")) for shape in weekend]
    assert widths[1] / widths[0] == pytest.approx(25 / 24, abs=0.002)
    assert date(2026, 11, 1).weekday() == 6


def test_settings_are_written_as_the_rules_file_has_them():
    said = {"ban_urls": True, "user_posts_cooldown_seconds": 9, "banned_words": ("a", "b")}
    expected = 'ban_urls = true, user_posts_cooldown_seconds = 9, banned_words = ["a","b"]'
    assert words(said) == expected


def test_a_day_that_a_zone_leaves_out_has_no_column():
    svg = drawn([room("samoa", ZoneInfo("Pacific/Apia"))], "2011-12-28T10:00", 5)
    check_geometry(svg)
    said = [text for *_, text in texts(svg)]
    assert {"29 Dec", "31 Dec"} <= set(said)
    assert "30 Dec" not in said
