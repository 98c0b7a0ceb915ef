"""Calendars that sellers keep elsewhere: from the web or a file to the dates of a room."""

import asyncio
import contextlib
import importlib.resources
import itertools
import json
import logging
import os
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import time
import zoneinfo
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import local_whop
import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from webhooks.inbox import connect
from worker.calendars import Broken
from worker.calendars.program import MEMORY, find
from worker.calendars.question import Ask
from worker.calendars.reading import REACH, expand, read
from worker.calendars.refresh import Calendars
from worker.calendars.web import LIMIT, NEVER_SEEN, Validators, Web, fetch, public, resolve
from worker.policy.calendars import Reading, Source, Verdict, belongs, changed, judge, upcoming
from worker.policy.occurrences import Occurrence, Occurrences, dates

PREFIX = "usher:biz_test:"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
NEW_YORK = ZoneInfo("America/New_York")
LONDON = ZoneInfo("Europe/London")
SECRET = "private-5ec2e7c0ffee"  # a part of the path, as in the private address of a calendar
SINGLE = "UID:one@calendar\nSUMMARY:AMA with Ada\nDTSTART:20261203T180000Z\nDTEND:20261203T193000Z"
SERIES = """UID:series@calendar
SUMMARY:Weekly AMA
DTSTART;TZID=America/New_York:20261203T180000
DTEND;TZID=America/New_York:20261203T193000
RRULE:FREQ=WEEKLY;COUNT=4"""


def ics(*entries: str, head: str = "") -> bytes:
    """Return a calendar of entries, each given by its lines."""
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//a seller//EN", *head.splitlines()]
    for entry in entries:
        lines += ["BEGIN:VEVENT", *entry.splitlines(), "END:VEVENT"]
    return "\r\n".join([*lines, "END:VCALENDAR", ""]).encode()


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def found(
    *entries: str, zone: ZoneInfo = NEW_YORK, word: str = "AMA", head: str = "", now: datetime = NOW
) -> list[Occurrence]:
    ask = Ask(now - REACH, now + REACH, {"ama": (word, zone.key)})
    return list(find(ics(*entries, head=head), ask).rooms["ama"])


def spans(ones: list[Occurrence]) -> list[tuple[datetime, datetime]]:
    return [(one.starts, one.ends) for one in ones]


# --- which entries belong to a room


@pytest.mark.parametrize(
    ("word", "categories", "summary", "expected"),
    [
        ("AMA", (), "Live AMA", True),
        ("ama", (), "Live AMA, with Ada", True),
        ("AMA", (), "Amateur night", False),
        ("AMA", (), "Drama", False),
        ("AMA", (), "AMA2", False),
        ("AMA", (), "(AMA)", True),
        ("Q&A", (), "Monday q&a", True),
        ("office hours", (), "Office  Hours", True),
        ("office hours", (), "office-hours", False),
        ("Café", (), "CAFE\u0301 talk", True),
        ("AMA", ("Work", "ama"), "Something", True),
        ("AMA", ("AMA prep",), "Something", False),
        ("a.a", (), "aba", False),
    ],
)
def test_an_entry_belongs_to_a_room_by_a_category_or_a_whole_word(
    word, categories, summary, expected
):
    assert belongs(word, categories, summary) is expected


def test_categories_are_read_from_the_calendar():
    entry = SINGLE.replace("AMA with Ada", "Ada") + "\nCATEGORIES:PEOPLE,ama\nCATEGORIES:OTHER"
    assert len(found(entry)) == 1
    assert found(entry, word="prep") == []


def test_a_source_does_not_tell_its_address():
    source = Source("AMA", url=f"https://user:pass@calendar.example:8443/{SECRET}/basic.ics")
    assert source.shown == "the calendar at calendar.example"
    assert source.feed == Source("QA", url=source.url).feed != Source("AMA", file="a.ics").feed
    assert Source("AMA", url="https://[").shown == "the calendar at its address"
    assert Source("AMA", file="events.ics").shown == "events.ics"


# --- from entries to instants

TIMES = {
    "utc": (
        "DTSTART:20261203T180000Z\nDTEND:20261203T190000Z",
        [("2026-12-03T18:00", "2026-12-03T19:00")],
    ),
    "a named zone": (
        "DTSTART;TZID=Europe/London:20260703T180000\nDTEND;TZID=Europe/London:20260703T190000",
        [("2026-07-03T17:00", "2026-07-03T18:00")],
    ),
    "a windows zone": (
        "DTSTART;TZID=Eastern Standard Time:20260703T180000\nDURATION:PT1H",
        [("2026-07-03T22:00", "2026-07-03T23:00")],
    ),
    "floating, in the room's zone": (
        "DTSTART:20260703T180000\nDTEND:20260703T190000",
        [("2026-07-03T22:00", "2026-07-03T23:00")],
    ),
    "all day, from midnight to midnight": (
        "DTSTART;VALUE=DATE:20260703\nDTEND;VALUE=DATE:20260705",
        [("2026-07-03T04:00", "2026-07-05T04:00")],
    ),
    "all day without an end": (
        "DTSTART;VALUE=DATE:20260703",
        [("2026-07-03T04:00", "2026-07-04T04:00")],
    ),
    "the whole day of a clock change": (
        "DTSTART;VALUE=DATE:20261101",
        [("2026-11-01T04:00", "2026-11-02T05:00")],
    ),
    "without an end": ("DTSTART:20261203T180000Z", [("2026-12-03T18:00", "2026-12-03T18:00")]),
    "an end before the start": (
        "DTSTART:20261203T180000Z\nDTEND:20261203T170000Z",
        [("2026-12-03T17:00", "2026-12-03T18:00")],
    ),
    "from the evening of a clock change to its morning": (
        (
            "DTSTART;TZID=America/New_York:20261031T220000\n"
            "DTEND;TZID=America/New_York:20261101T040000"
        ),
        [("2026-11-01T02:00", "2026-11-01T09:00")],
    ),
    "hours over a clock change are elapsed time": (
        "DTSTART;TZID=America/New_York:20261031T220000\nDURATION:PT6H",
        [("2026-11-01T02:00", "2026-11-01T08:00")],
    ),
    "a day over a clock change is the calendar's": (
        "DTSTART;TZID=America/New_York:20261031T220000\nDURATION:P1D",
        [("2026-11-01T02:00", "2026-11-02T03:00")],
    ),
    "a time that is skipped, and one that comes twice": (
        (
            "DTSTART;TZID=America/New_York:20260308T023000\nDURATION:PT5M\n"
            "RDATE;TZID=America/New_York:20261101T013000"
        ),
        [("2026-03-08T07:30", "2026-03-08T07:35"), ("2026-11-01T05:30", "2026-11-01T05:35")],
    ),
    "every night, over a clock change": (
        (
            "DTSTART;TZID=America/New_York:20261031T220000\n"
            "DTEND;TZID=America/New_York:20261031T230000\nRRULE:FREQ=DAILY;COUNT=2"
        ),
        [("2026-11-01T02:00", "2026-11-01T03:00"), ("2026-11-02T03:00", "2026-11-02T04:00")],
    ),
    "four hours each night, also in the night of the change": (
        (
            "DTSTART;TZID=America/New_York:20261030T220000\n"
            "DTEND;TZID=America/New_York:20261031T020000\nRRULE:FREQ=DAILY;COUNT=2"
        ),
        [("2026-10-31T02:00", "2026-10-31T06:00"), ("2026-11-01T02:00", "2026-11-01T06:00")],
    ),
    "a date that lasts longer than the others": (
        (
            "DTSTART:20261203T180000Z\nDTEND:20261203T190000Z\n"
            "RDATE;VALUE=PERIOD:20261204T180000Z/PT3H"
        ),
        [("2026-12-03T18:00", "2026-12-03T19:00"), ("2026-12-04T18:00", "2026-12-04T21:00")],
    ),
    "left out and added": (
        (
            "DTSTART:20261203T180000Z\nDURATION:PT1H\nRRULE:FREQ=DAILY;COUNT=3\n"
            "EXDATE:20261204T180000Z\nRDATE:20261210T180000Z"
        ),
        [
            ("2026-12-03T18:00", "2026-12-03T19:00"),
            ("2026-12-05T18:00", "2026-12-05T19:00"),
            ("2026-12-10T18:00", "2026-12-10T19:00"),
        ],
    ),
}


@pytest.mark.parametrize(("lines", "expected"), TIMES.values(), ids=TIMES)
def test_the_times_of_an_entry_are_instants(lines, expected):
    ones = found(f"UID:1\nSUMMARY:AMA\n{lines}")
    assert spans(ones) == [(utc(starts), utc(ends)) for starts, ends in expected]


def test_a_calendar_may_name_the_zone_of_its_floating_times():
    entry = "UID:1\nSUMMARY:AMA\nDTSTART:20260703T180000\nDURATION:PT1H"
    (one,) = found(entry, head="X-WR-TIMEZONE:Europe/London")
    assert one.starts == utc("2026-07-03T17:00")
    (one,) = found(entry, head="X-WR-TIMEZONE:Nowhere/AtAll")  # the room's zone is as good a guess
    assert one.starts == utc("2026-07-03T22:00")


def test_a_calendar_may_define_a_zone_of_its_own():
    zone = "BEGIN:VTIMEZONE\nTZID:Ours\nBEGIN:STANDARD\nDTSTART:19700101T000000\n"
    zone += "TZOFFSETFROM:+0300\nTZOFFSETTO:+0300\nEND:STANDARD\nEND:VTIMEZONE"
    (one,) = found("UID:1\nSUMMARY:AMA\nDTSTART;TZID=Ours:20261203T180000", head=zone)
    assert one.starts == utc("2026-12-03T15:00")


def test_dates_out_of_reach_are_not_known():
    entry = "UID:1\nSUMMARY:AMA\nDTSTART:20100104T180000Z\nDURATION:PT1H\nRRULE:FREQ=MONTHLY"
    ones = found(entry)
    assert all(one.ends >= NOW - REACH and one.starts <= NOW + REACH for one in ones)
    assert 26 <= len(ones) <= 27


# --- the same dates as a line of the rules file

RULES = [
    ("2026-01-01T18:00", "FREQ=WEEKLY;BYDAY=TH;COUNT=60", (), ()),
    ("2026-01-04T02:30", "FREQ=WEEKLY;BYDAY=SU", ("2026-02-01T02:30",), ("2026-02-02T02:30",)),
    ("2026-01-04T01:30", "FREQ=WEEKLY;BYDAY=SU", (), ()),
    ("2026-01-05T23:30", "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,WE", ("2026-01-19T23:30",), ()),
    ("2026-01-31T20:00", "FREQ=MONTHLY;BYMONTHDAY=31", (), ("2026-06-30T20:00",)),
    ("2026-01-30T09:00", "FREQ=MONTHLY;BYDAY=-1FR", ("2026-05-29T09:00",), ()),
    ("2026-01-01T00:00", "FREQ=MONTHLY;BYMONTHDAY=1;COUNT=20", (), ()),
    ("2026-03-01T02:15", "FREQ=DAILY;UNTIL=20261230T120000Z", ("2026-03-29T02:15",), ()),
    ("2026-02-28T12:00", "FREQ=MONTHLY;BYMONTHDAY=-1", (), ()),
    ("2024-02-29T12:00", "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29", (), ("2026-02-28T12:00",)),
    ("2026-01-01T18:00", "FREQ=MONTHLY;BYDAY=TH;BYSETPOS=1", ("2026-04-02T18:00",), ()),
]
ZONES = [
    *(
        "America/New_York",
        "Europe/London",
        "Australia/Lord_Howe",
        "Asia/Tokyo",
        "Africa/Casablanca",
    ),
    *("America/St_Johns", "Pacific/Chatham", "UTC"),
]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule[1])
def test_a_calendar_gives_the_same_instants_as_a_line_of_the_rules_file(rule, zone):
    start, repeats, exdate, rdate = rule
    zone = ZoneInfo(zone)
    local = [datetime.fromisoformat(start)]
    out, more = [[datetime.fromisoformat(t) for t in ts] for ts in (exdate, rdate)]
    lasts = timedelta(minutes=90)
    line = Occurrences(local[0], lasts, repeats, tuple(out), tuple(more))
    reach = [t.astimezone(zone).replace(tzinfo=None) for t in (NOW - REACH, NOW + REACH)]
    ours = [line.at(t, zone) for t in dates(line, zone).between(*reach, inc=True)]

    for named in (f";TZID={zone.key}", ""):  # with the zone's name, and floating
        stamps = {"DTSTART": local, "EXDATE": out, "RDATE": more}
        lines = [
            f"{name}{named}:{t:%Y%m%dT%H%M%S}" for name, times in stamps.items() for t in times
        ]
        if not named:
            until = utc("2026-12-30T12:00").astimezone(zone)
            repeats = repeats.replace("20261230T120000Z", f"{until:%Y%m%dT%H%M%S}")
        entry = "\n".join(["UID:1", "SUMMARY:AMA", *lines, "DURATION:PT90M", f"RRULE:{repeats}"])
        assert spans(found(entry, zone=zone)) == spans(ours)


# --- names that stay


def test_an_entry_that_is_moved_keeps_its_name():
    (before,) = found(SINGLE)
    (after,) = found(SINGLE.replace("20261203", "20261205").replace("Ada", "Bob"))
    assert before.id == after.id
    assert after.starts - before.starts == timedelta(days=2)


MOVED = """UID:series@calendar
SUMMARY:Weekly AMA, a day later
RECURRENCE-ID;TZID=America/New_York:20261210T180000
DTSTART;TZID=America/New_York:20261211T200000
DTEND;TZID=America/New_York:20261211T220000"""


def test_one_date_of_a_series_that_is_moved_keeps_its_name():
    before, after = found(SERIES), found(SERIES, MOVED)
    assert [one.id for one in before] == [one.id for one in after]
    assert before[1].id.endswith("-20261210T230000Z")
    assert spans(after[1:2]) == [(utc("2026-12-12T01:00"), utc("2026-12-12T03:00"))]
    assert [b for b, a in zip(before, after, strict=True) if b != a] == before[1:2]
    in_utc = MOVED.replace(";TZID=America/New_York:20261210T180000", ":20261210T230000Z")
    assert found(SERIES, in_utc) == after
    floating = MOVED.replace("RECURRENCE-ID;TZID=America/New_York", "RECURRENCE-ID")
    assert [one.id for one in found(SERIES, floating)] == [one.id for one in after]


def test_a_date_and_all_after_it_that_are_moved_keep_their_names():
    future = MOVED.replace("RECURRENCE-ID;", "RECURRENCE-ID;RANGE=THISANDFUTURE;")
    before, after = found(SERIES), found(SERIES, future)
    assert [one.id for one in before] == [one.id for one in after]
    later = timedelta(hours=26)
    assert [a.starts - b.starts for b, a in zip(before, after, strict=True)] == [
        timedelta(0),
        *[later] * 3,
    ]


def test_the_names_of_floating_and_whole_days_stay_in_every_zone():
    day = "UID:1\nSUMMARY:AMA\nDTSTART;VALUE=DATE:20261203\nRRULE:FREQ=DAILY;COUNT=2"
    floating = day.replace(";VALUE=DATE:20261203", ":20261203T180000")
    for entry, end in ((day, "-20261204"), (floating, "-20261204T180000")):
        ids = [[one.id for one in found(entry, zone=zone)] for zone in (NEW_YORK, LONDON)]
        assert ids[0] == ids[1]
        assert ids[0][1].endswith(end)


def test_names_are_fit_for_keys_and_differ():
    odd = [SINGLE.replace("one@calendar", uid) for uid in ("a b/c:ü", "a", "b", "{x}*")]
    ids = [one.id for one in found(*odd, SERIES)]
    assert len(set(ids)) == len(ids) == 8
    assert all(set(id_) <= set("0123456789abcdefTZ-") for id_ in ids)


def test_an_entry_without_a_uid_has_a_name_that_stays():
    entry = SINGLE.replace("UID:one@calendar\n", "")
    assert found(entry) == found(entry)
    assert len(found(entry, entry.replace("20261203", "20261204"))) == 2


def test_what_is_cancelled_is_left_out():
    assert found(SINGLE + "\nSTATUS:CANCELLED") == []
    off = found(SERIES, MOVED + "\nSTATUS:cancelled")
    assert [one.id for one in off] == [one.id for n, one in enumerate(found(SERIES)) if n != 1]
    assert len(found(SERIES + "\nSTATUS:TENTATIVE")) == 4


def test_a_date_of_a_series_that_lost_the_rooms_word_is_not_the_rooms():
    assert len(found(SERIES, MOVED.replace("AMA", "social"))) == 3
    assert len(found(SERIES.replace("AMA", "social"), MOVED)) == 1


# --- what cannot be read

BROKEN = {
    "nothing": (b"", "not an iCalendar file"),
    "garbage": (bytes(range(256)) * 64, "not an iCalendar file"),
    "a page": (b"<!doctype html><title>Sign in</title>", "not an iCalendar file"),
    "half": (ics(SINGLE)[:-40], "not a whole one"),
    "hourly": (ics(SERIES.replace("WEEKLY", "HOURLY")), '"Weekly AMA" repeats more often than'),
    "no start": (ics("UID:1\nSUMMARY:AMA"), '"AMA" has no DTSTART'),
    "a start that is none": (ics(SINGLE.replace("20261203T18", "soon")), "no DTSTART that can"),
    "a rule that is none": (
        ics(SERIES.replace("FREQ=", "OFTEN=")),
        "rule of repetition that cannot be read: .*OFTEN=WEEKLY",
    ),
    "a zone that is none": (
        ics(SINGLE.replace("DTSTART:20261203T180000Z", "DTSTART;TZID=Mars/Base:20261203T180000")),
        "in a zone that nobody knows: Mars/Base",
    ),
    "two starts": (ics(SINGLE + "\nDTSTART:20261204T180000Z"), "more than one DTSTART"),
    "a rule of another calendar": (
        ics(SERIES.replace("FREQ=", "RSCALE=CHINESE;FREQ=")),
        "a rule of repetition that cannot be read: ",
    ),
    "two kinds of time": (
        ics(SINGLE.replace("DTEND:20261203T193000Z", "DTEND;VALUE=DATE:20261204")),
        "of two kinds",
    ),
    "too many dates": (
        ics(SERIES.replace("WEEKLY;COUNT=4", "DAILY;BYHOUR=0,1,2,3,4,5,6,7;BYMINUTE=0,30")),
        "more than 5,000 dates for the room ama",
    ),
}


@pytest.mark.parametrize(("feed", "why"), BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_read_says_why(feed, why):
    with pytest.raises(Broken, match=why):
        find(feed, Ask(NOW - REACH, NOW + REACH, {"ama": ("AMA", NEW_YORK.key)}))


@pytest.mark.parametrize(
    ("feed", "why"),
    [
        (b"garbage", "not an iCalendar file"),
        (ics(SINGLE, head="CALSCALE:MAYAN"), r"entries that cannot be read \(InvalidCalendar\)"),
    ],
    ids=["refused", "unexpected"],
)
def test_the_process_that_reads_says_why_it_cannot(feed, why):
    async def main():
        with pytest.raises(Broken, match=why):
            await expand(feed, {"ama": (Source("AMA", url="x"), NEW_YORK)}, NOW)

    asyncio.run(main())


def test_broken_entries_of_others_do_no_harm():
    other = ["UID:2\nSUMMARY:Lunch", "UID:3\nSUMMARY:Lunch\nDTSTART:soon", "SUMMARY:Lunch"]
    endless = "UID:4\nSUMMARY:Alarm\nDTSTART:20260101T000000Z\nRRULE:FREQ=SECONDLY"
    assert len(found(SINGLE, *other, endless)) == 1


def children() -> set[int]:
    """Return the processes that this one started and that still run."""
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return {int(pid) for pid in path.read_text().split()} if path.exists() else set()


def confined(pid: int) -> bool:
    """Say whether a process has taken its little memory: it is about to read, or reads."""
    return resource.prlimit(pid, resource.RLIMIT_AS)[0] == MEMORY


@pytest.mark.parametrize(
    "entries",
    [
        ["UID:1\nSUMMARY:AMA\nDTSTART:20261203T180000Z\nRRULE:FREQ=DAILY;INTERVAL=0"],
        [
            f"UID:{n}\nSUMMARY:AMA\nDTSTART:19000101T180000Z\n"
            "RRULE:FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"
            for n in range(1000)
        ],
        [f"UID:{n}\nSUMMARY:AMA\nDTSTART:20261203T180000Z" for n in range(100_000)],
    ],
    ids=["a rule without an end", "a thousand rules without a date", "100,000 entries"],
)
def test_a_hostile_calendar_takes_no_more_than_its_time(entries):
    async def main():
        rooms = {"ama": (Source("AMA", url="x"), NEW_YORK)}
        before, ticks = children(), [time.process_time()]

        async def tick():
            while True:
                ticks.append(time.process_time())  # what others take of the machine is not in it
                await asyncio.sleep(0.01)

        beside = asyncio.create_task(tick())
        async with asyncio.timeout(local_whop.PATIENCE):
            with pytest.raises(Broken, match="more than 1 seconds to read"):
                await expand(feed, rooms, NOW, seconds=1)
        beside.cancel()
        assert children() == before  # it was stopped, not left behind
        assert max(b - a for a, b in itertools.pairwise(ticks)) < 0.5  # and all else went on

    feed = ics(*entries)
    asyncio.run(main())


def test_the_process_that_reads_knows_no_secret(tmp_path):
    out = tmp_path / "environment"
    spy = tmp_path / "sitecustomize.py"
    spy.write_text(f"import os; open({str(out)!r}, 'w').write(repr(dict(os.environ)))")

    async def main():
        sys.path.insert(0, str(tmp_path))
        os.environ["WHOP_API_KEY"] = "apik_of_a_seller"
        try:
            await expand(ics(SINGLE), {"ama": (Source("AMA", url="x"), NEW_YORK)}, NOW)
        finally:
            sys.path.remove(str(tmp_path))
            del os.environ["WHOP_API_KEY"]

    asyncio.run(main())
    assert "PYTHONPATH" in out.read_text()
    assert "apik_of_a_seller" not in out.read_text()


def test_the_process_that_reads_has_our_zones(tmp_path):
    tokyo = importlib.resources.files("tzdata") / "zoneinfo" / "Asia" / "Tokyo"
    (tmp_path / "Ours").write_bytes(tokyo.read_bytes())
    before = zoneinfo.TZPATH
    entry = SINGLE.replace("DTSTART:20261203T180000Z", "DTSTART;TZID=Ours:20261203T180000")

    async def main():
        zoneinfo.reset_tzpath([str(tmp_path)])
        try:
            rooms = {"ama": (Source("AMA", url="x"), NEW_YORK)}
            return await expand(ics(entry.replace("\nDTEND:20261203T193000Z", "")), rooms, NOW)
        finally:
            zoneinfo.reset_tzpath(before)

    assert asyncio.run(main()).rooms["ama"][0].starts == utc("2026-12-03T09:00")


def test_a_process_that_dies_is_a_calendar_that_cannot_be_read(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(7)")

    async def main():
        sys.path.insert(0, str(tmp_path))
        try:
            with pytest.raises(Broken, match="ended early, with 7"):
                await expand(ics(SINGLE), {"ama": (Source("AMA", url="x"), NEW_YORK)}, NOW)
        finally:
            sys.path.remove(str(tmp_path))

    asyncio.run(main())


def test_a_reading_that_is_cancelled_leaves_no_process_behind():
    async def main():
        before = children()
        endless = ics("UID:1\nSUMMARY:AMA\nDTSTART:20261203T180000Z\nRRULE:FREQ=DAILY;INTERVAL=0")
        rooms = {"ama": (Source("AMA", url="x"), NEW_YORK)}
        task = asyncio.create_task(expand(endless, rooms, NOW))
        if sys.platform == "linux":
            await local_whop.until(lambda: any(map(confined, children() - before)))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert children() == before

    asyncio.run(main())


# --- the web


@dataclass
class Publisher:
    """A server of calendars: says what each path answers, and keeps what it was asked."""

    pages: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    sent: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            await local_whop._lifespan(receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.asked.append((scope["path"], headers))
        page = self.pages.get(scope["path"], (404, {}, b"no such calendar"))
        if callable(page):
            await page(self, receive, send)
            return
        status, more, content = page
        tag = more.get("etag")
        if tag and headers.get("if-none-match") == tag:
            status, content = 304, b""
        await answer(send, status, more)
        await send({"type": "http.response.body", "body": content})

    def publish(self, *entries: str, etag: str | None = None, path: str = f"/{SECRET}") -> None:
        more = {"etag": etag} if etag else {}
        self.pages[path] = (200, more, ics(*entries))


async def answer(send, status: int, more: dict[str, str]) -> None:
    headers = [(name.encode(), value.encode()) for name, value in more.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def endless(publisher: Publisher, receive, send) -> None:
    """Send a calendar that does not end, until the other side hangs up."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        publisher.gone.set()

    watching = asyncio.create_task(watch())
    await answer(send, 200, {})
    while not publisher.gone.is_set():
        await send({"type": "http.response.body", "body": b"X" * 65_536, "more_body": True})
        publisher.sent += 65_536
        await asyncio.sleep(0)
    await watching


async def boasting(publisher: Publisher, receive, send) -> None:
    """Announce a large calendar, and send none of it."""
    await answer(send, 200, {"content-length": str(LIMIT + 1)})
    while (await receive())["type"] != "http.disconnect":
        pass
    publisher.gone.set()


async def silent(publisher: Publisher, receive, send) -> None:
    """Begin an answer, and say no more until the other side hangs up."""
    await answer(send, 200, {})
    await send({"type": "http.response.body", "body": b"BEGIN:", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass
    publisher.gone.set()


NAMES = {"calendar.test": ["127.0.0.1"], "moved.test": ["127.0.0.1"], "inside.test": ["10.0.0.7"]}


@dataclass
class Names:
    """A DNS of our own; a name that has several answers gives the next with each question."""

    known: dict[str, list[str]] = field(default_factory=lambda: dict(NAMES))
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.known[host] if host in self.known else await resolve(host, port)


def near(address: str) -> bool:
    """Let the tests reach their own server, and nothing else that `public` would not."""
    return address == "127.0.0.1" or public(address)


@dataclass
class Bench:
    publisher: Publisher
    port: int
    web: Web
    names: Names

    def url(self, path: str = f"/{SECRET}", host: str = "calendar.test") -> str:
        return f"http://{host}:{self.port}{path}"

    async def fetch(self, path: str = f"/{SECRET}", known: Validators = NEVER_SEEN) -> Any:
        return await fetch(self.url(path), known, self.web)


@asynccontextmanager
async def publishing(**how: Any) -> AsyncIterator[Bench]:
    publisher, names = Publisher(), Names()
    async with local_whop.serving(publisher) as url:
        port = int(url.rpartition(":")[2])
        web = Web(**{"reachable": near, "resolve": names, **how})
        yield Bench(publisher, port, web, names)


def test_a_calendar_is_asked_for_only_when_it_is_new():
    async def main():
        async with publishing() as bench:
            bench.publisher.publish(SINGLE, etag='"1"')
            bench.publisher.pages["/dated"] = (200, {"last-modified": "Mon, 1"}, b"x")
            got = await bench.fetch()
            assert got.content == ics(SINGLE)
            assert await bench.fetch(known=got.validators) is None
            bench.publisher.publish(SERIES, etag='"2"')
            assert (await bench.fetch(known=got.validators)).content == ics(SERIES)
            dated = await bench.fetch("/dated")
            await bench.fetch("/dated", known=dated.validators)
            assert bench.publisher.asked[-1][1]["if-modified-since"] == "Mon, 1"
            assert bench.publisher.asked[0][1]["host"] == f"calendar.test:{bench.port}"

    asyncio.run(main())


ANSWERS = {
    "gone": ((404, {}, b""), "not there any more: HTTP 404"),
    "closed": ((403, {}, b""), "may not be read with this address: HTTP 403"),
    "ill": ((500, {}, b""), "the answer was HTTP 500"),
    "a part": ((206, {}, b""), "the answer was HTTP 206"),
    "unasked 304": ((304, {}, b""), "the answer was HTTP 304"),
    "compressed": ((200, {"content-encoding": "gzip, gzip"}, b"x"), "comes compressed"),
    "large": ((200, {}, b"x" * (LIMIT + 1)), "larger than 2 MiB"),
    "to a file": ((302, {"location": "file:///etc/passwd"}, b""), "not of the form https"),
    "to nonsense": ((302, {"location": "http://[::1"}, b""), "redirects to what is no address"),
    "to a private address": (
        (302, {"location": "http://10.0.0.7/"}, b""),
        "10.0.0.7 is not on the public internet",
    ),
    "to a private name": (
        (302, {"location": "http://inside.test/"}, b""),
        "inside.test is not on the public internet",
    ),
    "to metadata": (
        (307, {"location": "//169.254.169.254/latest"}, b""),
        "169.254.169.254 is not on the public",
    ),
}


@pytest.mark.parametrize(("page", "why"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_is_no_calendar_says_why(page, why):
    async def main():
        async with publishing() as bench:
            bench.publisher.pages[f"/{SECRET}"] = page
            with pytest.raises(Broken, match=why) as caught:
                await bench.fetch()
            assert SECRET not in str(caught.value)

    asyncio.run(main())


def test_three_redirects_are_followed_and_no_more():
    async def main():
        async with publishing() as bench:
            for n in range(4):
                bench.publisher.pages[f"/{n}"] = (302, {"location": f"/{n + 1}"}, b"")
            bench.publisher.publish(SINGLE, path="/4")
            assert await bench.fetch("/1")
            bench.publisher.asked.clear()
            with pytest.raises(Broken, match="redirects more than 3 times"):
                await bench.fetch("/0")
            assert [path for path, _ in bench.publisher.asked] == ["/0", "/1", "/2", "/3"]

    asyncio.run(main())


def test_a_redirect_is_followed_with_the_name_that_it_leads_to():
    async def main():
        async with publishing() as bench:
            there = bench.url("/new", host="moved.test")
            bench.publisher.pages[f"/{SECRET}"] = (301, {"location": there}, b"")
            bench.publisher.publish(SINGLE, path="/new")
            assert (await bench.fetch()).content == ics(SINGLE)
            assert [headers["host"].partition(":")[0] for _, headers in bench.publisher.asked] == [
                *("calendar.test", "moved.test")
            ]
            assert bench.names.asked == ["calendar.test", "moved.test"]

    asyncio.run(main())


def test_a_password_stays_with_the_host_that_it_is_for():
    async def main():
        async with publishing() as bench:
            there = bench.url("/new", host="moved.test")
            bench.publisher.pages["/mine"] = (302, {"location": there}, b"")
            bench.publisher.publish(SINGLE, path="/new")
            url = bench.url("/mine", host="ada:sesame@calendar.test")
            assert await fetch(url, NEVER_SEEN, bench.web)
            first, second = (headers for _, headers in bench.publisher.asked)
            assert first["authorization"].startswith("Basic ")
            assert "authorization" not in second

    asyncio.run(main())


def test_a_calendar_without_an_end_is_left_early():
    async def main():
        async with publishing() as bench:
            bench.publisher.pages["/endless"] = endless
            with pytest.raises(Broken, match="larger than 2 MiB"):
                await bench.fetch("/endless")
            await asyncio.wait_for(bench.publisher.gone.wait(), local_whop.PATIENCE)
            assert bench.publisher.sent < 16 * LIMIT

    asyncio.run(main())


def test_a_calendar_that_is_announced_as_too_large_is_not_waited_for():
    async def main():
        async with publishing() as bench:
            bench.publisher.pages["/boasting"] = boasting
            with pytest.raises(Broken, match="larger than 2 MiB"):
                await bench.fetch("/boasting")
            await asyncio.wait_for(bench.publisher.gone.wait(), local_whop.PATIENCE)

    asyncio.run(main())


def test_no_word_of_a_server_gets_into_an_error():
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        writer.write(b"HTTP/9.9 what do you mean by " + line + b"\r\n\r\n")
        writer.close()

    async def main():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            url = f"http://calendar.test:{port}/{SECRET}"
            with pytest.raises(Broken, match="connection failed") as caught:
                await fetch(url, NEVER_SEEN, Web(reachable=near, resolve=Names()))
            assert SECRET not in str(caught.value)
            assert SECRET in str(caught.value.__cause__)

    asyncio.run(main())


def test_a_server_that_falls_silent_is_not_waited_for():
    async def main():
        async with publishing(seconds=1) as bench:
            bench.publisher.pages["/silent"] = silent
            with pytest.raises(Broken, match="did not come within 1 seconds"):
                await bench.fetch("/silent")
            await asyncio.wait_for(bench.publisher.gone.wait(), local_whop.PATIENCE)

    asyncio.run(main())


def test_a_host_that_refuses_and_a_name_that_nobody_has():
    async def main():
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else can
            port = bound.getsockname()[1]
            async with publishing() as bench:
                with pytest.raises(Broken, match="connection failed"):
                    await fetch(f"http://calendar.test:{port}/", NEVER_SEEN, bench.web)
                with pytest.raises(Broken, match=r"known for the name usher\.invalid"):
                    await fetch("http://usher.invalid/", NEVER_SEEN, bench.web)

    asyncio.run(main())


def test_the_next_address_of_a_name_is_tried_where_the_first_is_dead():
    async def main():
        async with publishing(reachable=lambda _: True) as bench:
            bench.names.known["calendar.test"] = ["::1", "127.0.0.1"]
            bench.publisher.publish(SINGLE)
            assert await bench.fetch()

    asyncio.run(main())


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://calendar.test/", "webcal://calendar.test/", "calendar.test/a.ics", "https:///a"),
        *("http://[::1", "file:///etc/passwd", ""),
    ],
)
def test_only_the_web_is_fetched(url):
    with pytest.raises(Broken, match="not of the form https://host/path"):
        asyncio.run(fetch(url, NEVER_SEEN, Web()))


PRIVATE = [
    *("127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254"),
    *("100.64.0.1", "0.1.2.3", "255.255.255.255", "224.0.0.1", "239.1.1.1"),
    *("::1", "::", "fe80::1", "fe80::1%lo", "fc00::1", "fd12:3456::1", "ff02::1", "ff0e::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "2002:7f00:1::", "2001:db8::1"),
]
PUBLIC = ["1.1.1.1", "142.250.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_no_place_for_a_calendar(address):
    assert not public(address)

    async def main():
        names = Names({"calendar.test": ["1.1.1.1", address]})  # one public is not enough
        with pytest.raises(Broken, match="not on the public internet"):
            await fetch("http://calendar.test/", NEVER_SEEN, Web(resolve=names))

    asyncio.run(main())


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_one(address):
    assert public(address)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "2130706433", "0x7f.1", "0", "[::1]", "[::ffff:127.0.0.1]"),
        *("[0:0:0:0:0:ffff:7f00:1]", "127.0.0.1."),
    ],
)
def test_this_machine_is_not_reached_by_any_of_its_names(host):
    async def main():
        async with publishing(reachable=public, resolve=resolve) as bench:
            with pytest.raises(Broken, match=r"public internet|no address is known"):
                await fetch(bench.url(host=host), NEVER_SEEN, bench.web)
            assert bench.publisher.asked == []

    asyncio.run(main())


def test_a_name_that_changes_between_two_looks_is_looked_up_once():
    async def main():
        async with publishing() as bench:
            answers = iter([["127.0.0.1"], ["10.0.0.7"]])

            async def rebinding(_host: str, _port: int) -> list[str]:
                return next(answers)

            bench.publisher.publish(SINGLE)
            web = Web(reachable=near, resolve=rebinding)
            assert await fetch(bench.url(host="rebinding.test"), NEVER_SEEN, web)
            assert list(answers) == [["10.0.0.7"]]

    asyncio.run(main())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """Make a certificate for calendar.test that nobody signed."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    chain, key = folder / "chain.pem", folder / "key.pem"
    names = ["-subj", "/CN=calendar.test", "-addext", "subjectAltName=DNS:calendar.test"]
    kind = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command = [openssl, "req", *kind, "-keyout", key, "-out", chain, *names]
    subprocess.run(command, check=True, capture_output=True)
    return chain, key


def test_tls_is_spoken_with_the_name_though_the_connection_goes_to_an_address(certificate):
    chain, key = certificate
    heard: list[str | None] = []
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(chain, key)
    ours.sni_callback = lambda _socket, name, _context: heard.append(name)
    trusting = ssl.create_default_context(cafile=chain)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            asked = await reader.readuntil(b"\r\n\r\n")
            content = ics(SINGLE)
            length = b"Content-Length: %d\r\n\r\n" % len(content)
            if asked.startswith(b"GET /down"):
                writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://calendar.test/\r\n" + length)
            else:
                writer.write(b"HTTP/1.1 200 OK\r\n" + length)
            writer.write(content)
            await writer.drain()
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=ours)
        port = server.sockets[0].getsockname()[1]
        async with server:
            web = Web(reachable=near, resolve=Names(), tls=trusting)
            assert await fetch(f"https://calendar.test:{port}/", NEVER_SEEN, web)
            assert heard == ["calendar.test"]
            with pytest.raises(Broken, match="redirects from https to http"):
                await fetch(f"https://calendar.test:{port}/down", NEVER_SEEN, web)
            with pytest.raises(Broken, match="certificate is not valid: Hostname mismatch"):
                await fetch(f"https://moved.test:{port}/", NEVER_SEEN, web)
            unknown = Web(reachable=near, resolve=Names())
            with pytest.raises(Broken, match="certificate is not valid: self"):
                await fetch(f"https://calendar.test:{port}/", NEVER_SEEN, unknown)

    asyncio.run(main())


# --- files


def test_a_file_is_read_like_a_calendar_on_the_web(tmp_path):
    path = tmp_path / "events.ics"
    source = Source("AMA", file=str(path))

    async def main():
        with pytest.raises(Broken, match=f"there is no file {path}"):
            await read(source, NEW_YORK, NOW)
        path.write_bytes(ics(SINGLE))
        assert list(await read(source, NEW_YORK, NOW)) == found(SINGLE)
        path.write_bytes(b"x" * (LIMIT + 1))
        with pytest.raises(Broken, match="larger than 2 MiB"):
            await read(source, NEW_YORK, NOW)
        with pytest.raises(Broken, match="cannot be opened: File name too long"):
            await read(Source("AMA", file="x" * 300), NEW_YORK, NOW)
        path.unlink()
        os.mkfifo(path)  # would be waited for until somebody writes
        with pytest.raises(Broken, match="there is no file"):
            await asyncio.wait_for(read(source, NEW_YORK, NOW), local_whop.PATIENCE)

    asyncio.run(main())


def test_a_calendar_on_the_web_is_read_without_redis():
    async def main():
        async with publishing() as bench:
            bench.publisher.publish(SERIES)
            source = Source("AMA", url=bench.url())
            assert list(await read(source, NEW_YORK, NOW, web=bench.web)) == found(SERIES)

    asyncio.run(main())


# --- what a new reading means


def at(hours: float, id_: str | None = None) -> Occurrence:
    starts = NOW + timedelta(hours=hours)
    return Occurrence(id_ or f"at{hours:g}", starts, starts + timedelta(hours=1))


JUDGED = {
    "all as before": ([1, 2], [1, 2], 9, False),
    "one of two gone": ([1, 2], [2], 9, False),
    "both gone": ([1, 2], [], 9, True),
    "both gone, one of them over": ([-5, 2], [], 9, False),
    "both gone, one of them goes on": ([-0.5, 2], [], 9, True),
    "the only one gone": ([2], [], 9, False),
    "the only one gone, with all else": ([2], [], 0, True),
    "only what is over is left": ([-5, 1, 2], [-5], 9, True),
    "all moved": ([1, 2], [30, 40], 2, False),
    "new": ([], [1, 2], 2, False),
}


@pytest.mark.parametrize(("before", "after", "entries", "held"), JUDGED.values(), ids=JUDGED)
def test_a_reading_waits_for_the_seller_when_a_rooms_dates_go_all_at_once(
    before, after, entries, held
):
    before, after = ({"ama": tuple(at(hours) for hours in some)} for some in (before, after))
    verdict = judge(before, Reading(entries, after), NOW)
    assert verdict.rooms == (before if held else after)
    assert verdict.held == (after if held else {})


def test_dates_that_are_over_stay_known_when_all_of_them_leave_the_calendar():
    """So a room stays archived."""
    over = {"ama": (at(-9), at(-5))}
    assert judge(over, Reading(0, {"ama": ()}), NOW) == Verdict(over, {})
    assert judge(over, Reading(1, {"ama": (at(-5),)}), NOW).rooms == {"ama": (at(-5),)}


def test_a_room_that_waits_goes_on_waiting_while_a_date_of_it_is_ahead():
    before, nothing = {"ama": (at(1), at(100))}, Reading(5, {"ama": ()})
    first = judge(before, nothing, NOW)
    assert first.held == {"ama": ()}
    later = NOW + timedelta(hours=50)  # the first is over: to lose the other alone looks harmless
    assert judge(before, nothing, later, first.held) == first
    assert judge(before, nothing, later).held == {}
    assert judge(before, nothing, NOW + timedelta(hours=150), first.held).held == {}
    again = judge(before, Reading(5, {"ama": (at(60),)}), later, first.held)
    assert again == Verdict({"ama": (at(60),)}, {})


def test_a_room_that_waits_does_not_hold_up_the_others():
    before = {"ama": (at(1), at(2)), "qa": (at(3),)}
    verdict = judge(before, Reading(1, {"ama": (), "qa": (at(4),)}), NOW)
    assert verdict.rooms == {"ama": before["ama"], "qa": (at(4),)}
    assert verdict.held == {"ama": ()}


hours = st.lists(st.integers(-50, 50), max_size=6, unique=True)


@given(hours, hours, st.integers(0, 3))
def test_no_room_loses_more_than_one_upcoming_date_by_a_single_reading_unasked(old, new, entries):
    before, after = (tuple(at(hour) for hour in some) for some in (old, new))
    verdict = judge({"ama": before}, Reading(entries, {"ama": after}), NOW)
    left = upcoming(verdict.rooms["ama"], NOW)
    assert left or len(upcoming(before, NOW)) < 2
    assert verdict.rooms["ama"] in (before, after)


def test_only_what_both_readings_saw_can_change():
    since, until = NOW, NOW + timedelta(hours=10)
    assert not changed([at(1), at(-5)], [at(1), at(20)], since, until)
    assert changed([at(1)], [at(2, "at1")], since, until)
    assert changed([at(1)], [], since, until)
    assert changed([at(1)], [at(30, "at1")], since, until)


# --- what is known, over time


@dataclass
class Diary:
    """A seller's calendar, the rooms that follow it, and a clock that is moved by hand."""

    bench: Bench
    redis: Any
    calendars: Calendars
    now: list[datetime]
    rooms: dict[str, tuple[Source, ZoneInfo]]

    def later(self, **how: float) -> None:
        self.now[0] += timedelta(**how)

    async def refresh(self) -> set[str]:
        changed = await self.calendars.refresh(self.rooms)
        await self.calendars.planned({key: self.rooms[key] for key in changed})
        return changed

    def show(self, page: Any) -> None:
        """Publish a page; one that falls silent is waited for no longer than a moment."""
        self.bench.publisher.pages[f"/{SECRET}"] = page
        web = replace(self.bench.web, seconds=0.5) if page is silent else self.bench.web
        self.calendars = Calendars(self.redis, PREFIX, clock=lambda: self.now[0], web=web)

    async def starts(self, room: str = "ama") -> list[str]:
        ones = await self.calendars.occurrences(room, self.rooms[room][0])
        assert (await self.calendars.known(self.rooms))[room] == ones
        return [f"{one.starts:%d %H:%M}" for one in ones]

    async def state(self, room: str = "ama") -> Any:
        states = await self.calendars.states(self.rooms)
        return next(state for state in states if state.room == room)

    async def feeds(self) -> list[str]:
        """Return what is stored of each calendar."""
        return [value for key, value in (await self.stored()).items() if ":feed:" in key]

    async def stored(self) -> dict[str, str]:
        keys = [key async for key in self.redis.scan_iter()]
        return {key.decode(): (await self.redis.get(key)).decode() for key in keys}


@asynccontextmanager
async def following(redis_url: str, **how: Any) -> AsyncIterator[Diary]:
    client, now = connect(redis_url), [NOW]
    try:
        async with publishing(**how) as bench:
            calendars = Calendars(client, PREFIX, clock=lambda: now[0], web=bench.web)
            rooms = {"ama": (Source("AMA", url=bench.url()), NEW_YORK)}
            yield Diary(bench, client, calendars, now, rooms)
    finally:
        await client.aclose()


def test_dates_that_are_added_moved_or_cancelled_are_known_at_the_next_look(redis_url):
    async def main():
        async with following(redis_url) as diary:
            assert await diary.starts() == []
            diary.bench.publisher.publish(SINGLE)
            assert await diary.refresh() == {"ama"}
            assert await diary.starts() == ["03 18:00"]
            assert await diary.refresh() == set()
            diary.bench.publisher.publish(SINGLE.replace("T18", "T17"))
            assert await diary.refresh() == {"ama"}
            assert await diary.starts() == ["03 17:00"]
            diary.bench.publisher.publish(SINGLE, SERIES)
            assert await diary.refresh() == {"ama"}
            assert await diary.starts() == [
                "03 18:00",
                "03 23:00",
                "10 23:00",
                "17 23:00",
                "24 23:00",
            ]
            diary.bench.publisher.publish(SINGLE + "\nSTATUS:CANCELLED", SERIES, MOVED)
            assert await diary.refresh() == {"ama"}
            assert await diary.starts() == ["03 23:00", "12 01:00", "17 23:00", "24 23:00"]

    asyncio.run(main())


def test_a_change_is_told_again_until_somebody_was_set_to_look(redis_url):
    """A worker may die between the reading of a calendar and the planning of its rooms."""

    async def main():
        async with following(redis_url) as diary:
            diary.bench.publisher.publish(SINGLE, etag='"1"')
            assert await diary.calendars.refresh(diary.rooms) == {"ama"}
            diary.later(minutes=10)
            assert await diary.refresh() == {"ama"}  # the same calendar, and now it was planned
            assert await diary.refresh() == set()

    asyncio.run(main())


def test_of_two_readings_the_one_that_began_later_counts(redis_url):
    async def main():
        async with following(redis_url) as diary:
            diary.later(minutes=1)
            diary.bench.publisher.publish(SERIES)
            await diary.refresh()
            new = await diary.starts()
            diary.later(minutes=-1)  # a slow one, that began before and had the file as it was then
            diary.bench.publisher.publish(SINGLE)
            assert await diary.refresh() == set()
            assert await diary.starts() == new

    asyncio.run(main())


def test_a_calendar_that_is_not_new_is_neither_sent_nor_read(redis_url):
    async def main():
        async with following(redis_url) as diary:
            diary.bench.publisher.publish(SINGLE, etag='"1"')
            await diary.refresh()
            (before,) = await diary.feeds()
            diary.later(minutes=10)
            assert await diary.refresh() == set()
            assert diary.bench.publisher.asked[-1][1]["if-none-match"] == '"1"'
            (after,) = await diary.feeds()
            assert json.loads(after)["expanded_at"] == json.loads(before)["expanded_at"]
            assert json.loads(after)["good_at"] > json.loads(before)["good_at"]

    asyncio.run(main())


def test_a_calendar_that_came_again_is_not_read_again(redis_url, tmp_path):
    """Many servers give no ETag, and a file has none."""

    async def main():
        async with following(redis_url) as diary:
            path = tmp_path / "events.ics"
            path.write_bytes(ics(SINGLE))
            diary.bench.publisher.publish(SINGLE)
            diary.rooms["filed"] = (Source("AMA", file=str(path)), LONDON)
            assert await diary.refresh() == {"ama", "filed"}
            diary.later(minutes=10)
            assert await diary.refresh() == set()
            path.write_bytes(ics(SERIES))
            assert await diary.refresh() == {"filed"}
            read = [json.loads(one)["expanded_at"] for one in await diary.feeds()]
            assert sorted(read) == ["2026-11-22T12:00:00Z", "2026-11-22T12:10:00Z"]

    asyncio.run(main())


def test_a_calendar_is_read_anew_each_day_since_its_reach_moves_on(redis_url):
    async def main():
        async with following(redis_url) as diary:
            diary.bench.publisher.publish(SERIES.replace(";COUNT=4", ""), etag='"1"')
            await diary.refresh()
            first = await diary.starts()
            diary.later(days=8)
            assert await diary.refresh() == set()  # nobody moved anything
            assert "if-none-match" not in diary.bench.publisher.asked[-1][1]
            assert len(await diary.starts()) > len(first)

    asyncio.run(main())


def test_another_word_or_zone_in_the_rules_is_read_at_once(redis_url):
    async def main():
        async with following(redis_url) as diary:
            diary.bench.publisher.publish(SINGLE, SERIES, etag='"1"')
            await diary.refresh()
            diary.rooms["ama"] = (Source("Ada", url=diary.bench.url()), NEW_YORK)
            assert await diary.refresh() == {"ama"}
            assert await diary.starts() == ["03 18:00"]

    asyncio.run(main())


def test_rooms_with_one_calendar_share_a_look_at_it(redis_url):
    async def main():
        async with following(redis_url) as diary:
            url = diary.bench.url()
            diary.rooms["ada"] = (Source("Ada", url=url), LONDON)
            diary.rooms["lunch"] = (Source("Lunch", url=url), LONDON)
            diary.bench.publisher.publish(SINGLE, SERIES)
            assert await diary.refresh() == {"ama", "ada"}
            assert len(diary.bench.publisher.asked) == len(await diary.feeds()) == 1
            assert len(await diary.starts()) == 5
            assert await diary.starts("ada") == ["03 18:00"]
            assert await diary.starts("lunch") == []

    asyncio.run(main())


def test_a_calendar_that_is_broken_or_gone_keeps_the_last_good_reading(redis_url):
    async def main():
        async with following(redis_url) as diary:
            diary.bench.publisher.publish(SINGLE, etag='"1"')
            await diary.refresh()
            for page in ((404, {}, b""), (200, {}, b"garbage"), (500, {}, b""), silent):
                diary.show(page)
                diary.later(minutes=10)
                assert await diary.refresh() == set()
                assert await diary.starts() == ["03 18:00"]
                assert (await diary.state()).failing_since == NOW + timedelta(minutes=10)
            state = await diary.state()
            assert (state.good_at, state.upcoming) == (NOW, 1)
            assert state.error == "it did not come within 0.5 seconds"
            diary.show((200, {"etag": '"1"'}, ics(SINGLE)))
            assert await diary.refresh() == set()
            state = await diary.state()
            assert (state.failing_since, state.error) == (None, None)

    asyncio.run(main())


def test_a_room_keeps_the_dates_of_its_old_calendar_until_the_new_one_was_read(redis_url):
    async def main():
        async with following(redis_url) as diary:
            diary.bench.publisher.publish(SINGLE)
            await diary.refresh()
            diary.rooms["ama"] = (Source("AMA", url=diary.bench.url() + "/new"), NEW_YORK)
            diary.later(minutes=10)
            assert await diary.refresh() == set()  # there is no such page
            assert await diary.starts() == ["03 18:00"]
            assert (await diary.state()).failing_since == NOW + timedelta(minutes=10)
            diary.bench.publisher.pages[f"/{SECRET}/new"] = (200, {}, ics(SERIES))
            assert await diary.refresh() == {"ama"}
            assert await diary.starts() == ["03 23:00", "10 23:00", "17 23:00", "24 23:00"]

    asyncio.run(main())


def told(logs: list[Any]) -> list[str]:
    return [line["event"] for line in logs]


def test_the_seller_is_told_of_a_failure_when_it_begins_each_hour_and_when_it_is_over(redis_url):
    async def main():
        async with following(redis_url) as diary:
            with structlog.testing.capture_logs() as logs:
                await diary.refresh()
                for _ in range(9):
                    diary.later(minutes=10)
                    await diary.refresh()
                assert told(logs) == ["calendar.failing"] * 2
                diary.bench.publisher.publish(SINGLE)
                await diary.refresh()
                await diary.refresh()
                assert told(logs) == [*["calendar.failing"] * 2, "calendar.mended"]
                diary.bench.publisher.pages.clear()
                await diary.refresh()  # what begins anew is told at once
                assert told(logs)[3:] == ["calendar.failing"]
            line = logs[0]
            assert line["log_level"] == "warning"
            assert line["why"] == "it is not there any more: HTTP 404"
            assert line["calendar"] == "the calendar at calendar.test"
            assert line["since"] == str(NOW)
            assert line["last_good"] == "never"
            assert line["next"]

    asyncio.run(main())


def test_a_calendar_that_is_suddenly_empty_closes_no_room_until_that_is_accepted(redis_url):
    async def main():
        async with following(redis_url) as diary:
            diary.bench.publisher.publish(SERIES)
            await diary.refresh()
            before = await diary.starts()
            diary.bench.publisher.publish(etag='"empty"')
            with structlog.testing.capture_logs() as logs:
                for _ in range(7):
                    diary.later(minutes=10)
                    assert await diary.refresh() == set()
                    assert await diary.starts() == before
            assert told(logs) == ["calendar.emptied"] * 2  # at once, and after an hour
            assert (logs[0]["next"], logs[0]["rooms"]) == ("usher calendar accept", ["ama"])
            state = await diary.state()
            assert (state.upcoming, state.held) == (4, 0)
            assert state.held_since == NOW + timedelta(minutes=10)

            assert await diary.calendars.accept(diary.rooms) == {"ama"}
            assert await diary.calendars.accept(diary.rooms) == set()
            assert await diary.refresh() == {"ama"}  # nobody was set to look at the room before
            assert await diary.starts() == []
            assert (await diary.state()).held is None
            for days in (0, 2):  # and it stays accepted, also when the calendar is read anew
                diary.later(days=days)
                assert await diary.refresh() == set()
                assert await diary.starts() == []

    asyncio.run(main())


def test_what_waits_is_forgotten_when_the_calendar_is_full_again(redis_url):
    async def main():
        async with following(redis_url) as diary:
            for entries in ([SERIES], [SINGLE.replace("AMA", "Lunch")], [SERIES, SINGLE]):
                diary.bench.publisher.publish(*entries)
                await diary.refresh()
            assert len(await diary.starts()) == 5
            assert (await diary.state()).held is None
            assert await diary.calendars.accept(diary.rooms) == set()

    asyncio.run(main())


def test_one_room_of_a_calendar_may_be_accepted_while_another_waits(redis_url):
    async def main():
        async with following(redis_url) as diary:
            diary.rooms["weekly"] = (Source("weekly", url=diary.bench.url()), NEW_YORK)
            for entries in ([SERIES], []):
                diary.bench.publisher.publish(*entries)
                await diary.refresh()
            weekly = {"weekly": diary.rooms["weekly"]}
            assert await diary.calendars.accept(weekly) == {"weekly"}
            assert (await diary.starts("weekly"), len(await diary.starts())) == ([], 4)
            assert (await diary.state("weekly")).held is None
            assert (await diary.state()).held_since == NOW

    asyncio.run(main())


def test_a_word_of_the_seller_is_not_lost_to_a_look_that_goes_on(redis_url):
    async def main():
        async with following(redis_url) as diary:
            diary.bench.publisher.publish(SERIES)
            await diary.refresh()
            diary.bench.publisher.publish()
            await diary.refresh()
            reached, go_on = asyncio.Event(), asyncio.Event()

            async def slow(_publisher, _receive, send):
                reached.set()
                await go_on.wait()
                await answer(send, 200, {})
                await send({"type": "http.response.body", "body": ics(head="X-A:1")})

            diary.bench.publisher.pages[f"/{SECRET}"] = slow
            look = asyncio.create_task(diary.refresh())
            await reached.wait()
            assert await diary.calendars.accept(diary.rooms) == {"ama"}
            go_on.set()
            await look
            assert await diary.starts() == []
            assert (await diary.state()).held is None

    asyncio.run(main())


def test_two_that_write_at_once_both_count(redis_url):
    async def main():
        async with following(redis_url) as diary:
            feed = diary.rooms["ama"][0].feed

            def one_more(known):
                return msgspec.structs.replace(known, error=(known.error or "") + "x")

            await asyncio.gather(*(diary.calendars._update(feed, one_more) for _ in range(20)))
            assert (await diary.state()).error == "x" * 20

    asyncio.run(main())


def test_a_calendar_is_remembered_for_sixty_days_after_the_last_look(redis_url):
    async def main():
        async with following(redis_url) as diary:
            feed = f"{PREFIX}feed:{diary.rooms['ama'][0].feed}"
            await diary.refresh()
            assert [*await diary.stored()] == [feed]
            diary.bench.publisher.publish(SINGLE)
            await diary.refresh()
            assert {*await diary.stored()} == {feed, f"{PREFIX}fed:ama"}
            for key in await diary.stored():
                assert 59 * 86_400 < await diary.redis.ttl(key) <= 60 * 86_400

    asyncio.run(main())


def test_the_address_of_a_calendar_is_in_no_log_and_not_in_redis(redis_url, caplog):
    async def main():
        caplog.set_level(logging.INFO)
        with structlog.testing.capture_logs() as logs:
            async with following(redis_url) as diary:
                there = (302, {"location": f"/{SECRET}/again"}, b"")
                pages = [
                    *(there, (200, {"etag": '"1"'}, ics(SERIES)), (200, {}, ics())),
                    *((404, {}, b""), (200, {}, f"no {SECRET}".encode()), silent),
                    (302, {"location": f"http://10.0.0.7/{SECRET}"}, b""),
                    (302, {"location": f"http://[/{SECRET}"}, b""),
                ]
                for page in pages:
                    diary.show(page)
                    diary.later(hours=2)
                    await diary.refresh()
                shown = repr(await diary.calendars.states(diary.rooms)) + repr(diary.calendars)
                stored = repr(await diary.stored())
        assert len(logs) >= 5
        for text in (repr(logs), caplog.text, shown, stored):
            assert SECRET not in text
        assert diary.bench.publisher.asked[0][0] == f"/{SECRET}"

    asyncio.run(main())
