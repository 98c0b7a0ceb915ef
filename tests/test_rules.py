"""rooms.toml: what it says, and what is said of its mistakes."""

import asyncio
import socket
from collections.abc import Sequence
from datetime import datetime, time, timedelta
from pathlib import Path

import pytest

from worker import rules
from worker.calendars import Broken
from worker.calendars.web import NEVER_SEEN, Web, fetch
from worker.policy.calendars import Source
from worker.policy.messages import Message, When
from worker.policy.pace import Pace
from worker.policy.phases import Phase
from worker.policy.rooms import Cohorts
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


def event(text: str = "", *, name: str = "R", line: str = "") -> str:
    """A room with three dates in December; `line` is added to their line."""
    return f"""{HEAD}[rooms.r]
name = "{name}"
products = ["prod_a"]
occurrences = [
    {{ starts = 2026-12-03T18:00:00, lasts = "90m", repeats = "FREQ=WEEKLY;COUNT=3"{line} }},
]
{text}"""


def repeating(rule: str) -> str:
    return room(
        f'occurrences = [{{ starts = 2026-01-01T18:00:00, lasts = "1h", repeats = "{rule}" }}]'
    )


def slow(text: str) -> str:
    return room(f"[rooms.r.slow]\n{text}")


def message(text: str) -> str:
    return event(f"[[rooms.r.messages]]\n{text}")


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
        "rooms.lounge.products: expected a list: each an id that begins with prod_, got ['foo']",
        'rooms.lounge.who_can_post: expected "everyone" or "admins", got \'all\'',
    ]


def other(text: str) -> str:
    """Another room, in the file of the first."""
    return f'\n[rooms.s]\nname = "S"\nproducts = ["prod_a"]\n{text}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            room('who_can_post = "all"\nuser_posts_cooldown_seconds = -3\nbanned_words = [""]'),
            ["who_can_post", "user_posts_cooldown_seconds", "banned_words"],
        ),
        (room('name2 = 3\ncohort = { by = "seats" }'), ["name: ", "name2", "cohort.seats"]),
        (room('cohort = { by = "month", seats = 3, s = 4 }'), ["name", "cohort.s:", "cohort."]),
        (
            room(
                """
                locks = 3
                occurrences = [
                    { starts = 2026-01-01T00:00:00Z, lasts = "long" },
                    { starts = 3, lasts = "1h", repeats = "FREQ=HOURLY" },
                    { starts = 2026-01-01T00:00:00, repeats = "COUNT=2;FREQ=DAILY;UNTIL=20270101" },
                    { starts = 2026-01-01T00:00:00, lasts = 3, exdate = [2026-01-02T00:00:00] },
                    { starts = 2026-01-01T00:00:00, lasts = "1h", repeats = "FREQ=DAILY;COUNT=0" },
                    { starts = 2026-01-01T00:00:00, lasts = "1h", repeats = 3 },
                ]
                """
            ),
            [
                "locks",
                "occurrences[0].lasts",
                "occurrences[0].starts",
                "occurrences[1].starts",
                "occurrences[1].repeats",
                "occurrences[2].lasts",
                "occurrences[2].repeats",
                "occurrences[3].lasts",
                "occurrences[3].exdate",
                "occurrences[4]: 'FREQ=DAILY;COUNT=0' never happens",
                "occurrences[5].repeats",
            ],
        ),
        (
            room('calendar = { url = "ftp://a.example", file = " ", wort = "AMA" }'),
            ["calendar.wort", "calendar.word", "calendar: ", "calendar.url", "calendar.file"],
        ),
        (
            event('messages = [{ when = "now", text = " " }, { when = "lock", ahead = "1h" }]'),
            ["messages[0].when", "messages[0].text", "messages[1].text", "messages[1].ahead"],
        ),
        (
            slow('busy = "60"\nquiet = 20\nsteps = [5, 5]\nchanges = 0'),
            ["slow.busy", "slow.steps", "slow.changes"],
        ),
        (
            room("windows = [{ days = [], ban_urls = 3, to = 07:00:00 }, 3]"),
            ["windows[1]: expected a table, got 3", "windows[0].ban_urls", "windows[0].from",
             "windows[0].days"],
        ),
    ],
    ids=["settings", "seats", "cohort", "occurrences", "calendar", "messages", "slow", "windows"],
)  # fmt: skip
def test_no_mistake_in_a_table_hides_another(text, expected):
    found = mistakes(text)
    assert len(found) == len(expected), found
    for mistake, place in zip(found, expected, strict=True):
        assert mistake.startswith(f"rooms.r.{place}")


def test_no_mistake_in_a_room_hides_what_is_wrong_between_rooms():
    text = room('experience = "exp_a"\nlocks = 3')
    text += other('experience = "exp_a"\ngrace = 3').replace('"S"', '"R"')
    text += '\n[rooms.t]\nname = "T"\nproducts = ["prod_a"]\nexperience = "chat_1"'
    assert [mistake.partition(" ")[0] for mistake in mistakes(text) if ".s." in mistake] == [
        "rooms.s.grace:",
        "rooms.s.grace:",
        "rooms.s.name:",
        "rooms.s.experience:",
    ]
    assert "rooms.t.experience: expected an id that begins with exp_, got 'chat_1'" in mistakes(
        text
    )


def test_what_a_key_should_be_is_sought_among_all_that_a_table_may_have():
    (top,) = mistakes(room("").replace("[rooms.r]", "hosts = 3\n[rooms.r]"))
    assert top == "hosts: is not a key here; known are account, timezone, rooms"
    (near,) = mistakes(room("occurences = []"))
    assert near == "rooms.r.occurences: is not a key here; did you mean 'occurrences'?"
    (setting,) = mistakes(
        room(
            "[[rooms.r.windows]]\nban_url = true\nban_media = true\nfrom = 22:00:00\nto = 07:00:00"
        )
    )
    assert setting.endswith("did you mean 'ban_urls'?")


def test_a_window_with_a_setting_that_cannot_be_is_not_told_to_have_one():
    text = "[[rooms.r.windows]]\nban_urls = 3\nfrom = 22:00:00\nto = 07:00:00"
    assert mistakes(room(text)) == ["rooms.r.windows[0].ban_urls: expected true or false, got 3"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("true", "true"),
        ("[false, 2026-01-02, { a = true }]", "[false, 2026-01-02, { a = true }]"),
        ("12:30:00", "12:30:00"),
        ("{}", "{}"),
    ],
)
def test_a_value_is_shown_as_toml_has_it(value, shown):
    (only,) = mistakes(room(f"welcome = {value}"))
    assert only == f"rooms.r.welcome: expected a text, got {shown}"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[rooms", "it is not TOML"),
        (HEAD, "rooms: expected at least one table"),
        (HEAD + "rooms = 3", "rooms: expected at least one table"),
        (HEAD + "[rooms]\nlounge = 3", "rooms.lounge: expected a table, got 3"),
        (room('grace = "3d"'), "rooms.r.grace: is for rooms with a cohort"),
        (
            room('on_refund = "revoke"'),
            "rooms.r.on_refund: is for the seats of rooms with a cohort",
        ),
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


def test_an_event_room_says_all_that_it_can():
    text = event(
        """
        one_room_per = "occurrence"
        lead = "2d"
        seats = 40
        plan = "plan_a"
        archive_after = "1d"
        manual_edits = "revert"
        calendar = { file = "events.ics", word = "AMA" }
        [rooms.r.slow]
        busy = 60
        quiet = 20
        steps = [5, 30]
        changes = 4
        say = "{seconds} seconds from now on"
        [[rooms.r.messages]]
        when = "before"
        text = "Soon."
        ahead = "2h"
        pin = true
        [[rooms.r.messages]]
        when = "before"
        text = "In an hour."
        [[rooms.r.messages]]
        when = "lock"
        text = "Thanks."
        """,
        name="AMA of {date}",
        line=", exdate = [2026-12-10T18:00:00], rdate = [2026-12-11T18:00:00]",
    )
    (found,) = rules.parse(text, "/etc/usher/rooms.toml").rooms
    assert (found.one_room_per, found.lead) == ("occurrence", timedelta(days=2))
    assert (found.seats, found.plan, found.manual_edits) == (40, "plan_a", "revert")
    assert found.schedule.archives == timedelta(days=1)
    assert found.calendar == Source("AMA", file="/etc/usher/events.ics")
    assert found.schedule.dated == ()
    assert found.pace == Pace(
        busy=60, quiet=20, steps=(5, 30), changes=4, say="{seconds} seconds from now on"
    )
    assert found.schedule.paced
    assert found.messages == (
        Message(when=When.BEFORE, text="Soon.", ahead=timedelta(hours=2), pin=True),
        Message(when=When.BEFORE, text="In an hour.", ahead=timedelta(hours=1)),
        Message(when=When.LOCK, text="Thanks."),
    )
    (line,) = found.schedule.occurrences
    assert line.exdate == (datetime(2026, 12, 10, 18),)
    assert line.rdate == (datetime(2026, 12, 11, 18),)


def test_a_cohort_room_says_how_its_seats_are_given_and_taken():
    text = room(
        """
        cohort = { by = "week" }
        grant = "invite"
        grace = "0m"
        on_refund = "revoke"
        on_dispute = "keep"
        welcome = "Hello."
        """
    )
    (found,) = rules.parse(text.replace('"R"', '"R {cohort}"')).rooms
    assert (found.cohort, found.grant) == (Cohorts("week"), "invite")
    assert found.grace == timedelta(0)
    assert (found.on_refund, found.on_dispute) == ("revoke", "keep")
    assert found.welcome == "Hello."


def test_a_room_may_wait_for_its_first_buyer_or_take_over_a_chat():
    assert rules.parse(room('provision = "on_purchase"')).rooms[0].provision == "on_purchase"
    assert rules.parse(room('experience = "exp_a"')).rooms[0].experience == "exp_a"


@pytest.mark.parametrize("scheme", ["http", "https", "HTTPS"])
def test_a_calendar_may_be_behind_either_protocol(scheme):
    url = f"{scheme}://a.example/x.ics"
    (found,) = rules.parse(room(f'calendar = {{ url = "{url}", word = "AMA" }}')).rooms
    assert found.calendar == Source("AMA", url=url)


@pytest.mark.parametrize("also", ['cohort = { by = "month" }', 'one_room_per = "occurrence"'])
def test_a_name_that_is_missing_is_one_mistake(also):
    assert mistakes(event(also).replace('name = "R"\n', "")) == [
        "rooms.r.name: is missing; expected a text of 1 to 80 characters"
    ]


def test_a_room_that_says_nothing_of_it_has_none_of_it():
    (found,) = rules.parse(room("")).rooms
    assert (found.calendar, found.schedule.dated, found.pace, found.messages) == (
        None,
        None,
        None,
        (),
    )
    assert (found.one_room_per, found.lead, found.seats, found.plan) == ("series", None, None, None)
    assert (found.manual_edits, found.schedule.paced) == ("respect", False)


@pytest.mark.parametrize("key", ["archives", "archive_after"])
@pytest.mark.parametrize(("text", "length"), [("0m", timedelta(0)), ("2d", timedelta(days=2))])
def test_a_room_may_be_archived_at_its_last_lock_or_later(key, text, length):
    (found,) = rules.parse(event(f'{key} = "{text}"')).rooms
    assert found.schedule.archives == length


def test_the_calendars_are_those_of_the_rooms_that_have_one_in_their_zones():
    text = room('calendar = { url = "https://a.example/x.ics", word = "AMA" }')
    found = rules.parse(text + '\n[rooms.s]\nname = "S"\nproducts = ["prod_a"]')
    source = Source("AMA", url="https://a.example/x.ics")
    assert found.calendars == {"r": (source, found.rooms[0].schedule.zone)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            slow("busi = 60\nquiet = 20\nsteps = [5]"),
            [
                "rooms.r.slow.busi: is not a key here; did you mean 'busy'?",
                "rooms.r.slow.busy: is missing; expected a whole number",
            ],
        ),
        (room("slow = 3"), ["rooms.r.slow: expected a table, got 3"]),
        (room("[[rooms.r.slow]]"), ["rooms.r.slow: expected a table, got [{}]"]),
        (
            slow("busy = 20\nquiet = 20\nsteps = [5]"),
            ["rooms.r.slow.quiet: expected a number over 0 and below `busy`"],
        ),
        (
            slow("busy = 20\nquiet = 0\nsteps = [5, 5]\nchanges = 0"),
            [
                "rooms.r.slow.quiet: expected a number over 0 and below `busy`",
                "rooms.r.slow.steps: expected seconds that grow, such as [5, 15, 60]",
                "rooms.r.slow.changes: expected 1 or more changes an hour",
            ],
        ),
        (
            slow("busy = 2\nquiet = 1\nsteps = []"),
            ["rooms.r.slow.steps: expected seconds that grow, such as [5, 15, 60]"],
        ),
        (
            slow("busy = 2\nquiet = 1\nsteps = [0, 5]"),
            ["rooms.r.slow.steps: expected seconds that grow, such as [5, 15, 60]"],
        ),
        (
            slow('busy = 2\nquiet = 1\nsteps = ["5s"]'),
            ["rooms.r.slow.steps: expected a list: each a whole number, got ['5s']"],
        ),
    ],
)
def test_a_mistake_in_the_table_of_a_busy_chat_is_named(text, expected):
    assert mistakes(text) == expected


def test_the_smallest_numbers_of_a_busy_chat_are_taken():
    text = slow("busy = 2\nquiet = 1\nsteps = [1]\nchanges = 1")
    assert rules.parse(text).rooms[0].pace == Pace(busy=2, quiet=1, steps=(1,), changes=1)


MALFORMED = (
    *("webcal://secret", "secret", "https:///secret", "https://[secret", ""),
    *("https://a secret/x.ics", " https://a.example/secret", "https://a%20secret/x.ics"),
    "https://a.example/\\tsecret",
)
PRIVATE = (
    *("https://127.0.0.1/secret", "http://10.1.2.3:8080/secret", "https://[::1]/secret"),
    *("https://192.168.0.1/secret", "https://169.254.169.254/secret", "https://127.1/secret"),
    *("https://2130706433/secret", "https://[::ffff:10.0.0.1]/secret", "https://u:p@10.0.0.1/"),
    *("https://localhost/secret", "https://LOCALHOST./secret", "https://a.localhost/secret"),
)


@pytest.mark.parametrize("url", [*MALFORMED, *PRIVATE])
def test_an_address_that_the_rules_refuse_is_one_that_is_never_fetched(url):
    async def numbers(host: str, port: int) -> Sequence[str]:
        """Resolve as a machine does that knows no name but its own."""
        own = host.lower().rstrip(".").rpartition(".")[2] == "localhost"
        host = "127.0.0.1" if own else host
        found = socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)
        return [str(found[0][4][0])]

    with pytest.raises(Broken, match=r"public internet|not of the form|no address is known"):
        asyncio.run(fetch(url.replace("\\t", "\t"), NEVER_SEEN, Web(resolve=numbers)))


@pytest.mark.parametrize("host", ["8.8.8.8", "[2606:4700::1111]", "a.example:8443", "...", "ä.de"])
def test_an_address_on_the_public_internet_is_taken(host):
    url = f"https://{host}/x.ics"
    (found,) = rules.parse(room(f'calendar = {{ url = "{url}", word = "AMA" }}')).rooms
    assert found.calendar == Source("AMA", url=url)


@pytest.mark.parametrize(
    ("calendar", "expected"),
    [
        (
            "{}",
            [
                "rooms.r.calendar.word: is missing; expected a text",
                'rooms.r.calendar: expected a url or a file, and word = "..." for the entries',
            ],
        ),
        (
            '{ ulr = "https://a.example/secret", word = "AMA" }',
            [
                "rooms.r.calendar.ulr: is not a key here; did you mean 'url'?",
                'rooms.r.calendar: expected a url or a file, and word = "..." for the entries',
            ],
        ),
    ],
)
def test_what_a_calendar_lacks_is_named(calendar, expected):
    assert mistakes(room(f"calendar = {calendar}")) == expected


def test_a_calendars_file_that_is_not_there_is_doubted_and_hinders_nobody(tmp_path):
    text = room('calendar = { file = "x.ics", word = "AMA" }')
    (tmp_path / "rooms.toml").write_text(
        text + other('calendar = { url = "https://a.b", word = "A" }')
    )
    found = rules.load(tmp_path / "rooms.toml")
    why = "a path is seen from the folder of the rules file"
    assert rules.doubts(found) == [
        f"rooms.r.calendar.file: there is no file {tmp_path}/x.ics; {why}"
    ]
    (tmp_path / "x.ics").write_text("")
    assert rules.doubts(found) == []


@pytest.mark.parametrize(
    ("calendar", "expected"),
    [
        ('{ word = "AMA" }', "rooms.r.calendar: expected a url or a file, and word"),
        (
            '{ url = "https://a.example/x", file = "x.ics", word = "AMA" }',
            "rooms.r.calendar: expected a url or a file, and word",
        ),
        ('{ file = "x.ics", word = " " }', "rooms.r.calendar.word: expected the word"),
        ('{ file = "", word = "AMA" }', "rooms.r.calendar.file: expected the path of a file"),
        *[
            (
                f'{{ url = "{url}", word = "AMA" }}',
                "rooms.r.calendar.url: expected an address that begins with https:// or http://",
            )
            for url in MALFORMED
        ],
        *[
            (f'{{ url = "{url}", word = "AMA" }}', "rooms.r.calendar.url: is not on the public")
            for url in PRIVATE
        ],
        ('"https://a.example/secret.ics"', "rooms.r.calendar: expected a table such as { url ="),
        ("3", "rooms.r.calendar: expected a table such as { url ="),
    ],
)
def test_a_mistake_in_a_calendar_is_named_and_its_address_is_not(calendar, expected):
    (only,) = mistakes(room(f"calendar = {calendar}"))
    assert only.startswith(expected)
    assert "secret" not in only


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            message('wen = "before"\ntext = "x"'),
            [
                "rooms.r.messages[0].wen: is not a key here; did you mean 'when'?",
                'rooms.r.messages[0].when: is missing; expected "before" or "opening" or "lock"',
            ],
        ),
        (
            message('when = "after"\ntext = "x"'),
            ['rooms.r.messages[0].when: expected "before" or "opening" or "lock", got \'after\''],
        ),
        (
            message('when = "opening"\ntext = "x"\nahead = "1h"'),
            ['rooms.r.messages[0].ahead: is for when = "before" only'],
        ),
        (
            message('when = "lock"\ntext = "x"\nahead = "1h"'),
            ['rooms.r.messages[0].ahead: is for when = "before" only'],
        ),
        (
            message('when = "before"\ntext = "x"\nahead = "0m"'),
            ['rooms.r.messages[0].ahead: expected more than 0; at the opening is when = "opening"'],
        ),
        (
            message('when = "lock"\ntext = " "\n[[rooms.r.messages]]\nwhen = "lock"\npin = 1'),
            [
                "rooms.r.messages[0].text: expected a text that is not empty",
                "rooms.r.messages[1].pin: expected true or false, got 1",
                "rooms.r.messages[1].text: is missing; expected a text",
            ],
        ),
        (event("messages = 3"), ["rooms.r.messages: expected a list of tables, got 3"]),
    ],
)
def test_a_mistake_in_a_message_is_named(text, expected):
    assert mistakes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            message('when = "lock"\ntext = "From {start} to {ends}"'),
            "messages[0].text: {start} is no placeholder here; known are {starts} and {ends}",
        ),
        (
            message('when = "lock"\ntext = "{a}{b}{a}"'),
            "messages[0].text: {a} and {b} are no placeholders here; known are {starts} and {ends}",
        ),
        (
            event(name="R {Date}"),
            "name: {Date} is no placeholder here; known are {cohort} and {date}",
        ),
        (
            slow('busy = 2\nquiet = 1\nsteps = [1]\nsay = "{seconds}, {n}"'),
            "slow.say: {n} is no placeholder here; known is {seconds}",
        ),
        (
            room('welcome = "Hello {name}"'),
            "welcome: {name} is no placeholder here; there are none",
        ),
    ],
)
def test_a_placeholder_that_nobody_would_write_out_is_a_mistake(text, expected):
    assert mistakes(text) == [f"rooms.r.{expected}"]


def test_braces_that_are_no_placeholder_are_the_sellers_own():
    text = "{} { starts } {1} {a b} {starts}{ends}"
    (found,) = rules.parse(message(f'when = "lock"\ntext = "{text}"')).rooms
    assert found.messages[0].text == text


@pytest.mark.parametrize("name", [" ", "R ", "\\tR", "\u00a0R"])
def test_a_name_has_no_blanks_at_its_ends(name):
    assert mistakes(event(name=name)) == [
        "rooms.r.name: expected a text without blanks at its ends"
    ]


def test_a_name_may_be_wrong_in_more_than_one_way():
    assert len(mistakes(event(name=" {nope}"))) == 2


def test_names_that_differ_by_blanks_only_are_one():
    twins = room("") + other("").replace('"S"', '" R"')
    assert mistakes(twins)[1:] == [
        "rooms.s.name: rooms.r has this name too; a room is found again by its name"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            room("occurrences = []"),
            "occurrences: without a date the room is always open: add one, or leave this out",
        ),
        (
            room('occurrences = [{ starts = 2026-01-01T00:00:00, lasts = "0m" }]\nlocks = "1h"'),
            "occurrences[0].lasts: expected more than 0",
        ),
        (
            room("[[rooms.r.windows]]\nban_urls = true\nfrom = 22:00:00\nto = 07:00:00\ndays = []"),
            "windows[0].days: expected at least one day; without `days` it is every day",
        ),
        *[
            (
                room(f"banned_words = {words}"),
                "banned_words: expected words that are not empty: every message has an empty one",
            )
            for words in ('[""]', '["a", " "]')
        ],
    ],
)
def test_what_no_seller_can_mean_is_a_mistake(text, expected):
    assert mistakes(text) == [f"rooms.r.{expected}"]


def test_a_list_of_no_dates_beside_a_calendar_and_a_list_of_no_words_are_fine():
    rules.parse(room('occurrences = []\ncalendar = { file = "x.ics", word = "AMA" }'))
    assert rules.parse(room("banned_words = []")).rooms[0].schedule.base.banned_words == ()


@pytest.mark.parametrize(
    ("starts", "rule", "first"),
    [
        ("2026-12-03T18:00:00", "FREQ=WEEKLY;BYDAY=FR", "2026-12-04T18:00:00"),
        ("2026-12-03T18:00:00", "FREQ=DAILY;BYHOUR=9,19", "2026-12-03T19:00:00"),
        ("2026-12-31T18:00:00", "FREQ=MONTHLY;BYDAY=1MO;COUNT=3", "2027-01-04T18:00:00"),
        ("2026-12-03T18:00:00.5", "FREQ=WEEKLY;COUNT=3", "2026-12-03T18:00:00"),
    ],
)
def test_a_start_that_its_own_recurrence_drops_is_a_mistake(starts, rule, first):
    line = f'{{ starts = {starts}, lasts = "1h", repeats = "{rule}" ADDED }}'
    (only,) = mistakes(room(f"occurrences = [{line.replace('ADDED', '')}]"))
    assert only.startswith(f"rooms.r.occurrences[0].starts: {starts}")
    assert f"is no date of {rule!r}; its first one is {first}: write that" in only
    added = line.replace("ADDED", f", rdate = [{starts}]")
    rules.parse(room(f"occurrences = [{added}]"))
    unreadable = line.replace("ADDED", ", rdate = [3]")  # the start may be among them
    (only,) = mistakes(room(f"occurrences = [{unreadable}]"))
    assert only.startswith("rooms.r.occurrences[0].rdate: expected a list")


LOCAL = "expected a local time without an offset, such as 2026-12-03T18:00:00"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("exdate = [2026-12-04T18:00:00]", "exdate: 2026-12-04T18:00:00 is none of its dates"),
        ("exdate = [2026-12-10T18:00:01]", "exdate: 2026-12-10T18:00:01 is none of its dates"),
        ("exdate = [2026-12-24T18:00:00]", "exdate: 2026-12-24T18:00:00 is none of its dates"),
        ("exdate = [2026-12-10T18:00:00Z]", f"exdate: {LOCAL}"),
        ("rdate = [2026-12-11T18:00:00+01:00]", f"rdate: {LOCAL}"),
        (
            "exdate = [2026-12-11T18:00:00], rdate = [2026-12-11T18:00:00]",
            "exdate: 2026-12-11T18:00:00 is none of its dates",
        ),
        ("exdates = []", "exdates: is not a key here; did you mean 'exdate'?"),
    ],
)
def test_a_date_left_out_or_added_that_cannot_be_is_named(line, expected):
    assert mistakes(event(line=f", {line}")) == [f"rooms.r.occurrences[0].{expected}"]


@pytest.mark.parametrize("rule", ["FREQ=WEEKLY;BYDAY=SA", "FREQ=DAILY;UNTIL=20250101"])
def test_a_recurrence_whose_start_cannot_be_read_is_not_said_to_miss_it(rule):
    (only,) = mistakes(repeating(rule).replace("2026-01-01T18:00:00", "2026-01-01"))
    assert only.startswith("rooms.r.occurrences[0].starts: expected a local date and time")


def test_a_line_whose_dates_are_all_left_out_is_a_mistake():
    dates = ", ".join(f"2026-12-{day:02}T18:00:00" for day in (3, 10, 17))
    assert mistakes(event(line=f", exdate = [{dates}]")) == [
        "rooms.r.occurrences[0]: exdate leaves out all of its dates"
    ]


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("", "it has no FREQ"),
        ("hello", "it has no FREQ"),
        ("COUNT=3", "it has no FREQ"),
        ("FREQ", "it has no FREQ"),
        ("FREQ=DAILY;", "between two ; there is one NAME=VALUE"),
        ("FREQ=DAILY;COUNT", "between two ; there is one NAME=VALUE"),
        ("FREQ=DAILY=3", "between two ; there is one NAME=VALUE"),
        ("FREQ=YEARLY;BYDAY=99TH", "it counts further than a year or a month goes"),
        ("FREQ=DAILY;BYHOUR=25", "hour must be in 0..23"),
        ("FREQ=DAILY;INTERVAL=0", "an INTERVAL is 1 or more"),
        ("FREQ=WEEKLY;INTERVAL=00;BYDAY=TH", "an INTERVAL is 1 or more"),
        ("FREQ=HOURLY", "the times of a day are FREQ=DAILY;BYHOUR=9,18"),
        ("freq=secondly", "the times of a day are FREQ=DAILY;BYHOUR=9,18"),
        ("FREQ=DAILY;UNTIL=2030", "an UNTIL is a time such as 20261231T235959"),
        ("FREQ=DAILY;UNTIL=December", "an UNTIL is a time such as 20261231T235959"),
        ("FREQ=DAILY;COUNT=3;UNTIL=20261231T180000", "COUNT and UNTIL exclude each other"),
        ("FREQ=DAILY;UNTIL=20261231T180000;COUNT=3", "COUNT and UNTIL exclude each other"),
        ("DTSTART:20260101T180000Z\\nRRULE:FREQ=DAILY", "`starts` is its first date"),
        ("RRULE:FREQ=DAILY\\nEXDATE:20260102T180000", "one rule a line; exdate and rdate are keys"),
        ("RRULE:FREQ=DAILY\\nRRULE:FREQ=DAILY", "one rule a line; exdate and rdate are keys"),
        ("FREQ=WEEKLY;BYHAIR=1", "unknown parameter 'BYHAIR'"),
    ],
)
def test_a_recurrence_that_we_cannot_reckon_with_is_a_mistake(rule, why):
    (only,) = mistakes(repeating(rule))
    assert only.startswith("rooms.r.occurrences[0].repeats: ")
    assert f"is not an RRULE such as FREQ=WEEKLY;BYDAY=TH ({why}" in only


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=DAILY;INTERVAL=10",
        "FREQ=DAILY;UNTIL=20261231",
        "FREQ=DAILY;UNTIL=20261231T180000",
        "FREQ=DAILY;UNTIL=20261231T180000Z;BYHOUR=9,18",
        "rrule:freq=weekly;count=2",
    ],
)
def test_a_recurrence_that_we_can_reckon_with_is_taken(rule):
    (found,) = rules.parse(repeating(rule)).rooms
    assert found.schedule.first_opening == datetime(2026, 1, 1, 18, tzinfo=rules.UTC)


EVENT_KEYS = {
    "archive_after": '"1d"',
    "archives": '"1d"',
    "lead": '"1d"',
    "locks": '"1m"',
    "messages": "[]",
    "one_room_per": '"series"',
    "opens": '"1m"',
    "plan": '"plan_a"',
    "seats": "3",
}
NOT_AN_EVENT = "is for event rooms; this room has no occurrences"


def test_every_key_of_an_event_room_is_a_mistake_without_occurrences():
    keys = "\n".join(f"{key} = {value}" for key, value in EVENT_KEYS.items())
    tables = "\n".join(f"[rooms.r.{phase}]\nban_urls = true" for phase in Phase)
    assert mistakes(room(f"{keys}\n{tables}")) == [
        *(f"rooms.r.{key}: {NOT_AN_EVENT}" for key in sorted({*EVENT_KEYS, *Phase})),
        "rooms.r.archive_after: is another word for `archives`: leave one out",
    ]


def test_a_calendar_makes_an_event_room_too():
    calendar = 'calendar = { file = "x.ics", word = "AMA" }'
    (found,) = rules.parse(room(f'{calendar}\nopens = "15m"\nseats = 3')).rooms
    assert (found.schedule.eventful, found.seats) == (True, 3)


COHORT = "a cohort room makes its own rooms, and its seats are those of `cohort`"


@pytest.mark.parametrize(("grant", "value"), [("grant", "invite"), ("grace", "1d")])
def test_a_key_of_grants_is_a_mistake_without_a_cohort(grant, value):
    why = "is for rooms with a cohort; here the purchase itself opens the room"
    assert mistakes(room(f'{grant} = "{value}"')) == [f"rooms.r.{grant}: {why}"]
    text = room(f'{grant} = "{value}"\ncohort = {{ by = "month" }}')
    rules.parse(text.replace('"R"', '"R {cohort}"'))


@pytest.mark.parametrize("key", ["on_refund", "on_dispute"])
def test_without_a_cohort_there_is_no_seat_that_a_refund_could_end_or_leave(key):
    for word in ("revoke", "keep"):
        why = 'is for the seats of rooms with a cohort; here only "cancel" can be said'
        assert mistakes(room(f'{key} = "{word}"')) == [f"rooms.r.{key}: {why}"]
    (found,) = rules.parse(room(f'{key} = "cancel"')).rooms
    assert getattr(found, key) == "cancel"


def test_a_cohort_room_has_no_rooms_of_occurrences_and_no_seats_besides_its_cohorts():
    text = event(
        """
        cohort = { by = "month" }
        experience = "exp_a"
        lead = "1d"
        one_room_per = "series"
        plan = "plan_a"
        seats = 3
        """,
        name="R {cohort}",
    )
    keys = ["experience", "lead", "one_room_per", "plan", "seats"]
    assert mistakes(text) == [f"rooms.r.{key}: {COHORT}" for key in keys]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            event('lead = "1d"\nprovision = "on_purchase"'),
            'lead: makes the room ahead, provision = "on_purchase" with the first buyer: leave one',
        ),
        (
            event('archives = "1d"\narchive_after = "1d"'),
            "archive_after: is another word for `archives`: leave one out",
        ),
        (
            event('plan = "plan_a"'),
            "plan: holds the seats of the room by its stock; `seats` says how many",
        ),
        (event("seats = 0"), "seats: expected a number of seats from 1 on, got 0"),
        (
            event('seats = 3\nplan = "prod_a"'),
            "plan: expected an id that begins with plan_, got 'prod_a'",
        ),
        (
            event('manual_edits = "ignore"'),
            'manual_edits: expected "respect" or "revert", got \'ignore\'',
        ),
        (
            event('one_room_per = "date"'),
            'one_room_per: expected "series" or "occurrence", got \'date\'',
        ),
        (
            event('one_room_per = "occurrence"\nexperience = "exp_a"', name="R {date}"),
            "experience: is one room; with a room for each occurrence none is adopted",
        ),
        (
            event('one_room_per = "occurrence"'),
            "name: an occurrence's own room's name needs {date} in it",
        ),
        (
            event(name="R {date}"),
            'name: {date} is written out with one_room_per = "occurrence" only',
        ),
        (event(name="R {cohort}"), "name: {cohort} is written out with `cohort` only"),
        (
            event('opens = "99999999999d"'),
            "opens: expected a duration such as 90m, 3d or 1h30m, of 3650d at most, got '9999999",
        ),
        (
            event("[rooms.r.open]\nban_url = true"),
            "open.ban_url: is not a key here; did you mean 'ban_urls'?",
        ),
        (event("[rooms.r.opening]"), "opening: is not a key here; did you mean 'open'?"),
    ],
)
def test_keys_that_exclude_each_other_are_named(text, expected):
    (only,) = mistakes(text)
    assert only.startswith(f"rooms.r.{expected}")


@pytest.mark.parametrize(
    ("text", "placeholder"),
    [
        ('one_room_per = "occurrence"', "{date}"),
        ('cohort = { by = "week" }', "{cohort}"),
    ],
)
def test_a_name_must_fit_with_its_placeholder_written_out(text, placeholder):
    longest = {"{date}": "Wed 30 Sep 2026, 18:00", "{cohort}": "week 49 of 2026"}[placeholder]
    fits = "x" * (80 - len(longest)) + placeholder
    assert rules.parse(event(text, name=fits)).rooms[0].name == fits
    assert mistakes(event(text, name=f"x{fits}")) == [
        f"rooms.r.name: is over 80 characters with its {placeholder} written out"
    ]


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
        ("3650d", timedelta(days=3650)),
    ],
)
def test_a_duration_is_read(text, length):
    assert duration(text) == length


@pytest.mark.parametrize("text", ["", "90", "m", "1.5h", "-3d", "3 d", "3w"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="not a duration"):
        duration(text)


@pytest.mark.parametrize("text", ["3651d", "99999999999d", "3650d1s"])
def test_a_duration_that_no_calendar_could_hold_is_refused(text):
    with pytest.raises(ValueError, match="too long"):
        duration(text)
