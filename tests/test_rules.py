"""rooms.toml: what it says, and what is said of its mistakes."""

from datetime import time, timedelta
from pathlib import Path

import pytest

from worker import rules
from worker.policy.rooms import Cohorts
from worker.policy.phases import Phase
from worker.policy.schedule import Weekday
from worker.policy.settings import Settings, WhoCanPost
from worker.tables import duration

EXAMPLE = Path(__file__).parent.parent / "rooms.toml"
HEAD = 'account = "biz_x"\n'


def mistakes(text: str) -> list[str]:
    with pytest.raises(rules.RulesError) as error:
        rules.parse(text)
    return error.value.mistakes


def room(text: str) -> str:
    return f'{HEAD}[rooms.r]\nname = "R"\nproducts = ["prod_a"]\n{text}'


def test_the_shipped_example_says_the_five_uses():
    found = rules.load(EXAMPLE)
    assert [r.key for r in found.rooms] == ["lounge", "announcements", "vip", "course", "ama"]
    lounge, announcements, _, course, ama = found.rooms
    (window,) = lounge.schedule.windows
    assert (window.start, window.until) == (time(22), time(7))
    assert window.days == {*Weekday} - {Weekday.SAT, Weekday.SUN}
    assert window.settings == Settings(user_posts_cooldown_seconds=60)
    assert announcements.schedule.base.who_can_post == WhoCanPost.ADMINS
    assert course.cohort == Cohorts("seats", 200)
    assert course.grace == timedelta(days=3)
    assert ama.schedule.opens == timedelta(minutes=15)
    assert ama.schedule.phases == {Phase.OPEN: Settings(user_posts_cooldown_seconds=10)}
    assert str(ama.schedule.zone) == "America/New_York"


def test_a_room_may_have_a_zone_of_its_own():
    (found,) = rules.parse(room('timezone = "Asia/Tokyo"')).rooms
    assert str(found.schedule.zone) == "Asia/Tokyo"


def test_every_mistake_is_named_at_once():
    text = """
    account = "x"
    timezone = "Mars/Base"
    [rooms.A]
    name = 3
    prodcts = ["p"]
    [rooms.lounge]
    name = "L"
    products = ["foo"]
    who_can_post = "all"
    """
    assert mistakes(text) == [
        "account: expected an id that begins with biz_, got 'x'",
        "timezone: expected an IANA zone such as America/New_York, got 'Mars/Base'",
        "rooms.A: a room's key has small letters, digits, - and _ only",
        "rooms.A.name: expected a text of 1 to 80 characters, got 3",
        "rooms.A.prodcts: is not a key here; did you mean 'products'?",
        "rooms.A.products: is missing; expected a list: each an id that begins with prod_",
        'rooms.lounge.who_can_post: expected "everyone" or "admins", got \'all\'',
        "rooms.lounge.products: expected a list: each an id that begins with prod_, got ['foo']",
    ]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[rooms", "it is not TOML"),
        (HEAD, "rooms: expected at least one table"),
        (HEAD + "rooms = 3", "rooms: expected at least one table"),
        (HEAD + "[rooms]\nlounge = 3", "rooms.lounge: expected a table, got 3"),
        (room('grace = "3d"'), "rooms.r.grace: is for rooms with a cohort"),
        (room('on_refund = "revoke"'), "rooms.r.on_refund: is for rooms with a cohort"),
        (room('opens = "3m"'), "rooms.r.opens: is for event rooms"),
        (room("[rooms.r.open]\nban_urls = true"), "rooms.r.open: is for event rooms"),
        (room("open = 3"), "rooms.r.open: expected a table of settings, got 3"),
        (room("user_posts_cooldown_seconds = -1"), "expected 0 or more seconds"),
        (room('experience = "chat_1"'), "expected an id that begins with exp_"),
        (room('cohort = { by = "seats" }'), "rooms.r.cohort.seats: expected a number of seats"),
        (room('cohort = { by = "month", seats = 3 }'), "rooms.r.cohort.seats: expected a number"),
        (room('cohort = { by = "month" }'), "rooms.r.name: a cohort room's name needs {cohort}"),
        (room("windows = 3"), "rooms.r.windows: expected a list of tables, got 3"),
        (
            room("[[rooms.r.windows]]\nfrom = 22:00:00\nto = 07:00:00"),
            "rooms.r.windows[0]: a window needs a setting",
        ),
        (
            room("[[rooms.r.windows]]\nban_urls = true\nfrom = 22:00:00"),
            "rooms.r.windows[0].to: is missing; expected a time such as 22:00:00",
        ),
        (
            room('[[rooms.r.windows]]\nban_urls = true\nfrom = "22"\nto = 07:00:00'),
            "rooms.r.windows[0].from: expected a time such as 22:00:00, got '22'",
        ),
        (
            room('occurrences = [{ starts = 2026-01-01T00:00:00Z, lasts = "1h" }]'),
            "rooms.r.occurrences[0].starts: expected a local time without an offset",
        ),
        (
            room('occurrences = [{ starts = 2026-01-01T00:00:00, lasts = "long" }]'),
            "rooms.r.occurrences[0].lasts: expected a duration such as 90m, 3d or 1h30m",
        ),
        (
            room(
                'occurrences = [{ starts = 2026-01-01T00:00:00, lasts = "1h", repeats = "DAILY" }]'
            ),
            "rooms.r.occurrences[0].repeats: 'DAILY' is not an RRULE",
        ),
        (
            room(
                'occurrences = [{ starts = 2026-01-01T00:00:00, lasts = "1h",'
                ' repeats = "FREQ=DAILY;UNTIL=20250101T000000" }]'
            ),
            "rooms.r.occurrences[0]: 'FREQ=DAILY;UNTIL=20250101T000000' never happens",
        ),
        (
            room("") + '[rooms.s]\nname = "R"\nproducts = ["prod_a"]',
            "rooms.s.name: rooms.r has this name too",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(text, mistake):
    assert mistake in "\n".join(mistakes(text))


def test_a_file_that_cannot_be_read_says_what_to_do(tmp_path):
    with pytest.raises(rules.RulesError, match=r"set USHER_RULES to where your rooms\.toml is"):
        rules.load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'account = "\xe9"')
    with pytest.raises(rules.RulesError, match="not UTF-8"):
        rules.load(tmp_path / "latin.toml")


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90m", timedelta(minutes=90)),
        ("1h30m", timedelta(minutes=90)),
        ("3d", timedelta(days=3)),
        ("45s", timedelta(seconds=45)),
    ],
)
def test_a_duration_is_read(text, length):
    assert duration(text) == length


@pytest.mark.parametrize("text", ["", "90", "m", "1.5h", "-3d", "3 d", "3w"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="not a duration"):
        duration(text)
