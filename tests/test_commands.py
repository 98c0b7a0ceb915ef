"""What somebody stumbles over who has Usher for the first time, and reads what it says."""

import asyncio
import json
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import redis
from click.testing import CliRunner, Result
from ports import free_port
from test_processes import BARE, RULES, started, usher, wait_for

from webhooks.events import Delivery
from webhooks.inbox import Inbox, connect
from worker import settings, up
from worker.calendars.feed import State as Calendar
from worker.catchup import Found
from worker.chatter import Chatter
from worker.cli import main as cli
from worker.commands import about_members, calendar_report, dead, holds, verify
from worker.commands import plan as plans
from worker.commands.deliveries import Deliveries
from worker.leases import Leases
from worker.memory.channels import Kept
from worker.memory.places import Place
from worker.policy.conflicts import Trouble
from worker.policy.occurrences import Occurrence
from worker.policy.overrides import Hold, Overrides
from worker.policy.pace import State
from worker.policy.phases import Phase
from worker.policy.plan import Kind, plan
from worker.policy.rooms import Cohorts, Room
from worker.policy.schedule import Schedule
from worker.proof.inspection import Findings
from worker.rules import Rules, parse
from worker.store import Store
from worker.subjects import Subjects, milliseconds
from worker.words import counted

NEW_YORK = ZoneInfo("America/New_York")
NOW = datetime(2026, 12, 1, 17, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ACCOUNT = "biz_Usher000000001"
PREFIX = f"usher:{ACCOUNT}:"
NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rooms.toml").write_text(RULES)
    return tmp_path


def run(folder: Path, *arguments: str, **env: str) -> Result:
    """Run a command in this process; without more, with no Redis and no Whop."""
    environ = {"USHER_RULES": str(folder / "rooms.toml"), "WHOP_API_URL": "", "WHOP_API_KEY": ""}
    runner = CliRunner(env={**environ, "REDIS_URL": "", **env})
    return runner.invoke(cli.main, list(arguments))


# --- holds


def test_a_list_of_words_that_is_held_empty_has_no_word():
    assert holds.parse(["banned_words="]).settings.banned_words == ()
    assert holds.parse(["banned_words=scam,spam"]).settings.banned_words == ("scam", "spam")


BLANK = ["banned_words+=", "banned_words-=", "banned_words= "]
BLANK += ["banned_words=scam,,spam", "banned_words+=scam, ", "banned_words-=,scam"]


@pytest.mark.parametrize("typed", BLANK)
def test_a_word_that_is_blank_is_refused(typed):
    with pytest.raises(holds.HoldError, match="expected words that are not empty"):
        holds.parse([typed])


# --- a second shell beside `usher up`


def test_what_up_prints_to_paste_is_all_that_a_second_shell_needs(folder):
    command = ["up", "--whop-port", str(free_port())]
    env, log = {"USHER_PORT": str(free_port())}, folder / "up.log"
    with started(*command, cwd=folder, **env):
        wait_for(lambda: "Ctrl-C stops" in log.read_text())
        first = pasted(log)
        assert first.keys() == {"REDIS_URL", "WHOP_API_URL", "WHOP_API_KEY"}
        assert usher("rooms", cwd=folder, **first).returncode == 0
        wait_for(lambda: "in the log of hook_" in usher("catch-up", cwd=folder, **first).stdout)
        verified = usher("verify", cwd=folder, **first)
        assert f"of {ACCOUNT}" in verified.stdout, verified.stderr
        assert unread(folder, "verify", **first)[1] == ""
        second = usher(*command, cwd=folder, **env)
        assert "another `usher up` runs with the data in .usher" in second.stderr
    with started(*command, cwd=folder, **env):
        wait_for(lambda: log.read_text().count("Ctrl-C stops") == 2)
        assert pasted(log) == first


def pasted(log: Path) -> dict[str, str]:
    """Return the variables of the last line that is there to be pasted."""
    line = log.read_text().rpartition("export ")[2].splitlines()[0]
    return dict(one.split("=", 1) for one in line.split())


def test_beside_the_real_whop_up_prints_the_redis_and_no_key(folder):
    lines: list[str] = []
    where = {"receiver": "http://127.0.0.1:8000", "redis_url": NOWHERE, "folder": folder}
    up._greet(lines.append, **where, path=folder / "rooms.toml", whop_port=None)
    assert [line for line in lines if "export" in line] == [f"  export REDIS_URL={NOWHERE}"]
    assert not any("WHOP_API_KEY=" in line for line in lines)


def test_the_port_of_the_last_start_is_taken_again_while_it_is_free(tmp_path):
    note = tmp_path / "valkey-port"
    first = up._redis_port(note)
    assert up._redis_port(note) == first
    with socket.create_server(("127.0.0.1", first)):
        other = up._redis_port(note)
        assert other != first
    assert up._redis_port(note) == other


@pytest.mark.parametrize("text", ["", "x", "0", "65536", "²", "-1"])
def test_a_note_of_a_port_that_is_none_is_not_believed(tmp_path, text):
    note = tmp_path / "valkey-port"
    note.write_text(text)
    assert 0 < up._redis_port(note) < 65536
    assert note.read_text() != text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"REDIS_URL": NOWHERE}, r": WHOP_API_KEY\. .*as it does, need it; .*that sets it "),
        ({}, r": WHOP_API_KEY, REDIS_URL\. .*as it does, need both; .*that sets them "),
    ],
    ids=["one", "two"],
)
def test_what_is_missing_is_counted(given, said):
    with pytest.raises(settings.SettingsError, match=said):
        settings.Settings.from_env(given)


@pytest.mark.parametrize("url", ["localhost:4000", "127.0.0.1:4000/api/v1", "http://", "https:/x"])
def test_an_api_url_that_is_no_whole_url_is_refused_before_any_call(url):
    given = {"REDIS_URL": NOWHERE, "WHOP_API_KEY": "apik_x", "WHOP_API_URL": url}
    with pytest.raises(settings.SettingsError, match=f"WHOP_API_URL must be .*not '{url}'"):
        settings.Settings.from_env(given)


# --- the plan


ONE = Occurrence("84898daac4bb", NOW + DAY, NOW + DAY + HOUR)
EACH = Room(
    "each",
    "Each {date}",
    ("prod_a",),
    Schedule(NEW_YORK, dated=(), archives=2 * DAY),
    one_room_per="occurrence",
)
COURSE = Room("course", "Course {cohort}", ("prod_a",), Schedule(NEW_YORK), Cohorts("seats", 2))
EXIST = {"each/84898daac4bb": ONE, "course/1": None, "course/2": None, "each/lost": None}


def told(found) -> list[tuple[str, Kind, datetime]]:
    return [(entry.room, entry.kind, entry.at) for entry in found.entries]


def test_the_room_of_a_date_that_was_taken_away_is_still_archived_and_the_plan_says_so():
    found = plan([EACH, COURSE], NOW, NOW + 14 * DAY, exist=EXIST)
    assert told(found) == [("each/84898daac4bb", Kind.ARCHIVED, ONE.ends + 2 * DAY)]
    assert found.entries[0].calls
    assert told(plan([EACH], NOW, NOW + DAY, exist=EXIST)) == []
    later = ONE.ends + 3 * DAY
    assert told(plan([EACH], later, later + DAY, exist=EXIST)) == []
    assert told(plan([EACH], NOW, NOW + 14 * DAY, only="each/other", exist=EXIST)) == []


def test_the_room_of_a_date_that_stands_is_planned_once():
    dated = Room(**{**vars(EACH), "schedule": Schedule(NEW_YORK, dated=(ONE,), archives=2 * DAY)})
    alone = told(plan([dated], NOW, NOW + 14 * DAY))
    assert alone
    assert told(plan([dated], NOW, NOW + 14 * DAY, exist=EXIST)) == alone


def test_a_cohort_that_exists_can_be_asked_for_with_what_lies_on_it():
    hold = Hold(NOW, NOW + HOUR, "ada", phase=Phase.LOCKED)
    laid = {"course/1": Overrides(holds=(hold,))}
    found = plan([COURSE], NOW, NOW + DAY, only="course/1", overrides=laid, exist=EXIST)
    assert told(found)[-1] == ("course/1", Kind.HOLD_ENDS, NOW + HOUR)
    assert told(plan([COURSE], NOW, NOW + DAY, overrides=laid, exist=EXIST)) == []


@pytest.mark.parametrize("key", ["each/84898daac4bb", "course/1"])
def test_a_plan_of_one_of_the_rooms_on_whop_is_shown(key, capsys):
    rules = Rules(ACCOUNT, (EACH, COURSE))
    show(rules, key, EXIST)
    assert "From Tue 01 Dec 2026 12:00:00 EST" in capsys.readouterr().out
    with pytest.raises(plans.UnknownRoom, match="by itself; ask for --room"):
        show(rules, key, {})


def show(rules: Rules, room: str, exist) -> None:
    plans.show(
        rules, since=NOW, days=14, room=room, as_json=False, svg=None, overrides={}, exist=exist
    )


def test_the_plan_knows_the_rooms_that_exist(folder, redis_url):
    (folder / "rooms.toml").write_text(RULES + TALKS)
    soon = datetime.now(UTC) + DAY
    gone = Place("Talk", occurrence=Occurrence("84898daac4bb", soon, soon + HOUR))
    over = Place("Talk", occurrence=Occurrence("000000000000", soon, soon + HOUR), archived=True)
    places = {"talks/84898daac4bb": gone, "talks/000000000000": over, "course/1": Place("Course")}
    asyncio.run(remember(redis_url, places))
    whole = run(folder, "plan", REDIS_URL=redis_url)
    assert "talks/84898daac4bb  archived" in whole.output
    assert "talks/000000000000" not in whole.output
    for key in ("talks/84898daac4bb", "course/1"):
        assert run(folder, "plan", "--room", key, REDIS_URL=redis_url).exit_code == 0
    assert run(folder, "plan", "--room", "course/9", REDIS_URL=redis_url).exit_code == 1


TALKS = """
[rooms.talks]
name = "Talk {date}"
products = ["prod_basic"]
one_room_per = "occurrence"
archives = "2d"
calendar = { file = "talks.ics", word = "talk" }
"""


async def remember(url: str, places: dict[str, Place]) -> None:
    client = connect(url)
    for key, place in places.items():
        await Store(client, PREFIX).save_place(key, place)
    await client.aclose()


def test_a_calendar_that_was_never_read_is_not_said_to_be_empty():
    (conflict,) = (c for c in plan([EACH], NOW, NOW + DAY).conflicts)
    assert conflict.kind is Trouble.NOTHING_AHEAD
    assert conflict.text.endswith("its calendar holds none, or was not read yet")


@pytest.mark.parametrize(
    ("good_at", "upcoming", "said"),
    [
        (NOW, 0, "gone; the plan is kept"),
        (None, 2, "gone; the plan is kept"),
        (None, 0, "gone; it was never read and gives no dates yet"),
    ],
    ids=["read once", "another before it", "never read"],
)
def test_the_plan_of_a_calendar_that_fails_is_kept_only_if_there_is_one(good_at, upcoming, said):
    one = Calendar("ama", "talks.ics", "talk", good_at, NOW, "gone", upcoming, None, None, None)
    assert dict(calendar_report._facts(one, NEW_YORK))["state"].endswith(said)


# --- dates, and pipes that nobody reads


@pytest.mark.parametrize("date", ["0001-01-01", "1999-12-31", "2101-01-01", "9999-12-30T23:00Z"])
@pytest.mark.parametrize("command", ["plan", "simulate", "catch-up"])
def test_a_date_at_the_end_of_the_calendar_is_refused_in_one_line(folder, command, date):
    option = "--since" if command == "catch-up" else "--from"
    given = {"WHOP_API_KEY": "apik_x", "REDIS_URL": NOWHERE} if command == "catch-up" else {}
    found = run(folder, command, option, date, **given)
    assert f"Error: {option} {date}: expected a year from 2000 to 2100" in found.output
    assert found.exit_code == 1


@pytest.mark.parametrize("date", ["2000-01-01", "2100-12-31"])
def test_a_plan_reaches_to_the_ends_of_what_may_be_typed(folder, date):
    assert run(folder, "plan", "--from", date, "--days", "400").exit_code == 0


def test_a_simulation_begins_with_the_day_that_is_named_wherever_the_rooms_are(folder):
    (folder / "rooms.toml").write_text(f'timezone = "Europe/Berlin"{RULES}')
    found = run(folder, "simulate", "--days", "1", "--buyers", "1", "--from", "2026-12-01")
    assert "from Tue 01 Dec 2026 00:00:00 UTC" in found.output


UNREAD = [["plan", "--days", "400"], ["rooms"], ["rooms", "--json"]]
UNREAD += [["deliveries"], ["forget", "user_nobody"]]


@pytest.mark.parametrize("command", UNREAD, ids=" ".join)
def test_a_command_that_nobody_reads_ends_quietly(folder, redis_url, command):
    asyncio.run(remember(redis_url, {"course/1": Place("Course")}))
    assert unread(folder, *command, REDIS_URL=redis_url) == (1, "")


def unread(folder: Path, *command: str, **env: str) -> tuple[int, str]:
    """Run a command whose output nobody reads; return its exit code and what it complains of."""
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.cli.main", *command],
        cwd=folder,
        env={**BARE, "PYTHONPATH": str(Path(__file__).parent.parent), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    process.stdout.close()
    process.stdout = None
    _, said = process.communicate()
    return process.returncode, said


# --- a busy chat


SLOW = """
[rooms.hall]
name = "Hall"
products = ["prod_basic"]
[rooms.hall.slow]
busy = 20
quiet = 8
steps = [15, 30]
"""


def test_a_chat_that_is_slowed_says_so_and_what_takes_it_down_again(folder, redis_url):
    (folder / "rooms.toml").write_text(f'timezone = "America/New_York"{RULES}{SLOW}')
    asyncio.run(slowed(redis_url, State(1, (), NOW)))
    text = run(folder, "rooms", REDIS_URL=redis_url).output
    since = "slowed since Tue 01 Dec 2026 12:00:00 EST"
    down = "5 minutes with fewer than 8 messages each take it down a step"
    assert f"busy          step 1 of 2, 15 seconds, {since}; {down}" in text
    assert "next          the chat gets faster when it is quiet" in text
    (hall,) = json.loads(run(folder, "rooms", "--json", REDIS_URL=redis_url).stdout)
    assert hall["busy"] == {
        "step": 1,
        "steps": 2,
        "seconds": 15,
        "since": "2026-12-01T17:00:00Z",
        "quiet": 8,
    }
    asyncio.run(slowed(redis_url, State(9)))
    assert f"step 2 of 2, 30 seconds; {down}" in run(folder, "rooms", REDIS_URL=redis_url).output


def test_a_chat_at_rest_is_not_said_to_be_busy(folder, redis_url):
    (folder / "rooms.toml").write_text(RULES + SLOW)
    asyncio.run(slowed(redis_url, State()))
    text = run(folder, "rooms", REDIS_URL=redis_url).output
    assert "hall" in text
    assert "busy " not in text
    asyncio.run(slowed(redis_url, State(1, (), NOW), archived=True))
    assert "busy " not in run(folder, "rooms", REDIS_URL=redis_url).output


async def slowed(url: str, state: State, *, archived: bool = False) -> None:
    client = connect(url)
    store, channel = Store(client, PREFIX), "chat_feed_hall"
    await store.save_place("hall", Place("Hall", channel=channel, ready=True, archived=archived))
    await store.save_kept("hall", Kept(channel))
    await Chatter(client, PREFIX).save_state(channel, state)
    await client.aclose()


def test_a_survey_says_of_which_zone_its_hours_are(folder, redis_url):
    (folder / "rooms.toml").write_text(f'timezone = "America/New_York"{RULES}{SLOW}')
    asyncio.run(slowed(redis_url, State()))
    assert "of America/New_York" not in run(folder, "survey", "hall", REDIS_URL=redis_url).output
    with redis.Redis.from_url(redis_url) as client:
        for ago in (2, 3):
            counts = {f"{kind}{n}": 3 for n in range(60) for kind in ("m", "s")}
            hour = f"{PREFIX}chat:chat_feed_hall:{int(now().timestamp()) // 3600 - ago}"
            client.hset(hour, mapping=counts | {str(6 * n): 3 for n in range(60)})
    text = run(folder, "survey", "hall", REDIS_URL=redis_url).output
    head, zone, *rest = text.splitlines()
    assert head.endswith(" UTC")
    assert zone == "Its hour of the week is that of America/New_York."
    assert rest[-1].startswith("steps = [")


# --- what was found, in words


def test_a_verification_that_left_somebody_out_does_not_say_that_all_is_well():
    rules = parse(RULES)
    found = Findings(NOW, members=1, memberships=2, rooms=3)
    assert verify._summary(found, rules, repair=False) == (
        f"1 member, 2 memberships, 3 rooms of {ACCOUNT}: everything is as it should be."
    )
    found.in_work = {"member:user_a", "member:user_b"}
    assert verify._summary(found, rules, repair=False).endswith(
        "3 rooms of biz_Usher000000001: nothing else is wrong; 2 left out: changed, or tried, a "
        "moment ago. Look again in two minutes; `usher dead` shows what failed."
    )


def test_a_delivery_that_was_discarded_is_not_said_to_be_done(redis_url):
    async def main():
        client, lines = connect(redis_url), []
        inbox = Inbox(client, ACCOUNT)
        subjects = Subjects(client, PREFIX, Leases(client, PREFIX, "test"))
        facts = {"type": "membership.updated", "subject": "member:user_a", "user": "user_a"}
        one = Delivery(id="msg_a", received=milliseconds(now()), **facts)
        await inbox.put(one)
        claim = await subjects.claim("member:user_a", now() + HOUR)
        await subjects.dead(claim, now(), "no way")
        states = Deliveries(client, PREFIX).states
        assert await states([one]) == ["dead"]
        choice, rules = dead.Choice(everything=True), parse(RULES)
        said = {"who": "eve", "why": "", "now": now(), "echo": lines.append}
        assert await dead.discard(rules, redis_url, choice, **said) == 1
        assert await states([one]) == ["discarded"]
        await inbox.mark("member:user_a", "msg_b", milliseconds(now()))
        claim = await subjects.claim("member:user_a", now() + HOUR)
        await subjects.done(claim, now() + HOUR, None)
        assert await states([one]) == ["done"]
        await inbox.close()

    asyncio.run(main())


def now() -> datetime:
    return datetime.now(UTC)


def test_a_catch_up_says_that_the_log_goes_back_thirty_days_only():
    found = Found("hook_a", since=NOW - 30 * DAY, attempts=1, stored=1)
    wide, narrow = (
        list(about_members._caught_up(found, asked, NEW_YORK))
        for asked in (NOW - 90 * DAY, NOW - 30 * DAY)
    )
    assert wide[0] == (
        "Whop's log goes back 30 days: it was read since Sun 01 Nov 2026 12:00:00 EST."
    )
    assert wide[1:] == narrow
    assert narrow[0].startswith("1 attempt in the log of hook_a: 1 was lost and is taken in, 0 ")


def test_a_catch_up_from_a_day_to_come_is_refused(folder):
    given = {"WHOP_API_KEY": "apik_x", "REDIS_URL": NOWHERE}
    found = run(folder, "catch-up", "--since", "2099-01-01", **given)
    assert found.output == "Error: --since 2099-01-01: that is still to come\n"


def test_of_somebody_who_is_not_known_no_proof_is_written(folder, redis_url):
    found = run(folder, "forget", "user_nobody", REDIS_URL=redis_url)
    assert (found.exit_code, found.output) == (0, "Nothing is kept of user_nobody.\n")
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys("*") == []


def test_one_is_told_as_one():
    assert [counted(n, "room") for n in (0, 1, 2)] == ["0 rooms", "1 room", "2 rooms"]
    assert [counted(n, "entry", "entries") for n in (1, 1200)] == ["1 entry", "1,200 entries"]


def test_a_check_of_one_room_counts_one_room(folder):
    (folder / "rooms.toml").write_text(RULES.partition("[rooms.course]")[0])
    assert f"1 room of {ACCOUNT}: no mistakes." in run(folder, "check").output


def test_a_check_doubts_a_calendar_that_is_not_there(folder):
    calendar = 'calendar = { file = "no.ics", word = "x" }'
    lost = f'[rooms.ama]\nname = "AMA"\nproducts = ["prod_a"]\n{calendar}\n'
    (folder / "rooms.toml").write_text(f"{RULES.partition('[rooms.course]')[0]}{lost}")
    found = run(folder, "check")
    assert "rooms.ama.calendar.file: there is no file" in " ".join(found.output.split())
    assert found.output.endswith(f"2 rooms of {ACCOUNT}: no mistakes, but see above.\n")
    assert found.exit_code == 0
