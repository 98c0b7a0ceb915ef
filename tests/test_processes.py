"""Usher as its users run it: commands, exit codes, signals, and what they print."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from local_whop import PATIENCE
from ports import free_port

from worker import embedded

RULES = """
account = "biz_Usher000000001"
[rooms.lounge]
name = "The Lounge"
products = ["prod_basic"]
[rooms.course]
name = "Course {cohort}"
products = ["prod_course"]
cohort = { by = "seats", seats = 2 }
"""
DATED = """
account = "biz_Usher000000001"
timezone = "America/New_York"
[rooms.talks]
name = "The Talks"
products = ["prod_ticket"]
occurrences = [{ starts = 2026-01-01T18:00:00, lasts = "1h", repeats = "FREQ=WEEKLY" }]
"""
"""Of its dates some are always to come, whatever the clock says."""

HEAVY = {"arq", "httpx", "icalendar", "msgspec", "redis", "rich", "starlette", "uvicorn"}
BARE = {"PATH": os.environ["PATH"], "USHER_LOG": "json"}


def usher(*arguments: str, cwd: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "worker.cli.main", *arguments],
        cwd=cwd,
        env={**BARE, "PYTHONPATH": str(Path(__file__).parent.parent), **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@contextmanager
def started(
    *arguments: str, cwd: Path, ends: bool = True, **env: str
) -> Iterator["subprocess.Popen[str]"]:
    """Run a command beside the test; its output goes to `log` in its folder."""
    with (cwd / f"{arguments[0]}.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker.cli.main", *arguments],
            cwd=cwd,
            env={**BARE, "PYTHONPATH": str(Path(__file__).parent.parent), **env},
            stdout=log,
            stderr=log,
            text=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.terminate()
            code = process.wait(PATIENCE)
            assert not ends or code == 0, (cwd / f"{arguments[0]}.log").read_text()


def wait_for(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


def answers(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(url, timeout=2).status_code == 200
    return False


def in_room(whop: str, user: str, room: str) -> bool:
    """Ask the local Whop what its page shows: who may enter a room."""
    return any(one["name"] == room and user in one["may_enter"]["names"] for one in rooms(whop))


def rooms(whop: str) -> list[dict[str, Any]]:
    """Return the rooms that the local Whop's page shows."""
    return httpx.get(f"{whop}/sandbox/state", timeout=PATIENCE).json()["rooms"]


def listed(room: str, folder: Path, redis_url: str) -> dict[str, Any]:
    """Return what `usher rooms` says of a room that there is once."""
    said = json.loads(usher("rooms", "--json", cwd=folder, REDIS_URL=redis_url).stdout)
    (found,) = (one for one in said if one["room"] == room)
    return found


def buy(whop: str, *users: str) -> None:
    for user in users:
        body = {"product_id": "prod_course", "user": user}
        httpx.post(f"{whop}/sandbox/buy", json=body, timeout=PATIENCE).raise_for_status()


def slow(whop: str, seconds: float) -> None:
    body = {"latency_seconds": seconds}
    httpx.patch(f"{whop}/sandbox/faults", json=body, timeout=PATIENCE).raise_for_status()


def calls(whop: str, operation: str) -> int:
    """Return how many calls of an operation succeeded."""
    url = f"{whop}/sandbox/requests?operation={operation}"
    counts = httpx.get(url, timeout=PATIENCE).json()["counts"]
    return sum(n for status, n in counts.get(operation, {}).items() if status == "200")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rooms.toml").write_text(RULES)
    return tmp_path


def test_help_waits_for_no_library_and_names_every_command(folder):
    found = usher("--help", cwd=folder, PYTHONPROFILEIMPORTTIME="1")
    assert "click" in imported(found.stderr)
    assert not imported(found.stderr) & HEAVY
    for command in ("up", "receive", "work", "check", "rooms", "sandbox"):
        assert f"\n  {command} " in found.stdout
        assert usher(command, "--help", cwd=folder).returncode == 0


def imported(profile: str) -> set[str]:
    """Return the packages that Python's own account of its imports names."""
    names = (line.rpartition("|")[2].strip() for line in profile.splitlines())
    return {name.partition(".")[0] for name in names}


def test_check_shows_each_room_with_its_next_changes(folder):
    example = Path(__file__).parent.parent / "rooms.toml"
    found = usher("check", str(example), cwd=folder)
    assert found.returncode == 0, found.stderr
    assert "5 rooms of biz_UsherExample01: no mistakes." in found.stdout
    assert found.stdout.count("user_posts_cooldown_seconds = 60") >= 2
    (folder / "rooms.toml").write_text(DATED)
    talks = usher("check", cwd=folder).stdout
    assert talks.count(" E") >= 5  # five instants in New York's time


def test_check_names_every_mistake_and_fails(folder):
    (folder / "rooms.toml").write_text(RULES + 'nonsense = 1\nwelcom = "x"\n')
    found = usher("check", cwd=folder)
    assert found.returncode == 1
    assert found.stderr.startswith("Error: rooms.toml has 2 mistakes:")
    assert "did you mean 'welcome'?" in found.stderr


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("work", ["WHOP_API_KEY", "REDIS_URL"]),
        ("receive", ["WHOP_WEBHOOK_SECRET", "REDIS_URL"]),
        ("rooms", ["REDIS_URL"]),
    ],
)
def test_missing_variables_are_named_all_at_once(folder, command, names):
    found = usher(command, cwd=folder)
    assert found.returncode == 1
    assert all(name in found.stderr for name in names)
    assert "Traceback" not in found.stderr


def test_an_empty_secret_refuses_to_start(folder):
    found = usher("receive", cwd=folder, WHOP_WEBHOOK_SECRET="", REDIS_URL="redis://127.0.0.1:1")
    assert found.returncode == 1
    assert "WHOP_WEBHOOK_SECRET" in found.stderr


def test_up_says_in_one_line_what_is_in_its_way(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        found = usher("up", cwd=folder, USHER_PORT=port)
        assert found.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}" in found.stderr
        found = usher("up", "--whop-port", port, cwd=folder, USHER_PORT=str(free_port()))
        assert "choose another port with --whop-port" in found.stderr
    one = usher("up", cwd=folder, WHOP_API_KEY="k")
    assert "WHOP_API_KEY is set and WHOP_WEBHOOK_SECRET is not" in one.stderr
    assert "USHER_PORT must be a number" in usher("up", cwd=folder, USHER_PORT="x").stderr
    (folder / "rooms.toml").write_text("account = 3")
    broken = usher("up", cwd=folder)
    assert (broken.returncode, "rooms.toml has 2 mistakes" in broken.stderr) == (1, True)


def test_up_runs_everything_and_finds_its_data_again(folder):
    port, whop_port = free_port(), free_port()
    whop = f"http://127.0.0.1:{whop_port}"
    command, env = ["up", "--whop-port", str(whop_port)], {"USHER_PORT": str(port)}
    with started(*command, cwd=folder, **env):
        log = folder / "up.log"
        wait_for(lambda: "Usher is up." in log.read_text())
        found = usher("sandbox", "buy", "prod_course", "--user", "ada", "--whop", whop, cwd=folder)
        assert "ada" in found.stdout, found.stderr
        membership = found.stdout.split("membership ")[1].split()[0]
        wait_for(lambda: in_room(whop, "ada", "Course 1"))
        url = log.read_text().split("REDIS_URL=")[1].split()[0]
        # Usher notes a grant after Whop has made it.
        wait_for(lambda: listed("course", folder, url)["members_granted"])
        course = listed("course", folder, url)
        assert (course["cohort"], course["members_granted"], course["ready"]) == ("1", 1, True)
        assert course["element"].startswith("<ChatElement")
        assert course["channel"] in course["element"]
        assert course["channel"] in usher("rooms", cwd=folder, REDIS_URL=url).stdout
        second = usher("up", cwd=folder, USHER_PORT=str(free_port()))
        assert "another `usher up` runs with the data in .usher" in second.stderr or (
            "cannot listen" in second.stderr
        )
    wait_for(lambda: not answers(f"http://127.0.0.1:{port}/healthz"))
    assert not answers(f"{whop}/sandbox/state")
    with started(*command, cwd=folder, **env):
        wait_for(lambda: log.read_text().count("Usher is up.") == 2)
        assert in_room(whop, "ada", "Course 1")
        found = usher("sandbox", "cancel", membership, "--whop", whop, cwd=folder)
        assert "canceled" in found.stdout, found.stderr
        wait_for(lambda: not in_room(whop, "ada", "Course 1"))


def test_the_sandbox_commands_say_when_no_local_whop_answers(folder):
    found = usher(
        "sandbox", "buy", "prod_x", "--user", "u", "--whop", "http://127.0.0.1:1", cwd=folder
    )
    assert found.returncode == 1
    assert "no local Whop answers at http://127.0.0.1:1" in found.stderr


@pytest.fixture
def deployment(folder: Path) -> Iterator[dict[str, str]]:
    """A Valkey, a local Whop and a receiver; the workers are the test's."""
    redis_port, whop_port, port = (free_port() for _ in range(3))
    env = {
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
        "WHOP_API_KEY": "apik_test",
        "WHOP_API_URL": f"http://127.0.0.1:{whop_port}/api/v1",
        "WHOP_WEBHOOK_SECRET": "ws_" + "ab" * 32,
        "USHER_PORT": str(port),
    }
    hook = f"http://127.0.0.1:{port}/webhooks/whop"
    sandbox = ["sandbox", "--port", str(whop_port), "--webhook", hook]
    valkey = embedded.start(folder / "valkey", redis_port)
    try:
        with started(*sandbox, cwd=folder, **env), started("receive", cwd=folder, **env):
            wait_for(lambda: answers(f"http://127.0.0.1:{whop_port}/sandbox/state"))
            wait_for(lambda: answers(f"http://127.0.0.1:{port}/readyz"))
            yield {**env, "whop": f"http://127.0.0.1:{whop_port}", "redis_port": str(redis_port)}
    finally:
        embedded.stop(valkey)


def _env(deployment: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in deployment.items() if key.isupper()}


def test_a_worker_that_is_killed_in_the_middle_leaves_nothing_undone_and_nothing_twice(
    folder, deployment
):
    whop = deployment["whop"]
    with started("work", cwd=folder, ends=False, **_env(deployment)) as worker:
        wait_for(lambda: calls(whop, "experiences.attach"))
        slow(whop, 0.4)
        buy(whop, "ada", "bob", "cy")
        wait_for(lambda: calls(whop, "experiences.create") > 1)
        worker.kill()
        worker.wait()
    with started("work", cwd=folder, **_env(deployment)):
        wait_for(lambda: calls(whop, "memberships.create") == 3)
    assert sorted(room["name"] for room in rooms(whop)) == ["Course 1", "Course 2", "The Lounge"]
    for user in ("ada", "bob", "cy"):
        assert in_room(whop, user, "Course 1") != in_room(whop, user, "Course 2")


def test_workers_and_receiver_outlive_an_absence_of_redis(folder, deployment):
    whop, port = deployment["whop"], int(deployment["redis_port"])
    with started("work", cwd=folder, **_env(deployment)):
        buy(whop, "ada")
        wait_for(lambda: in_room(whop, "ada", "Course 1"))
        client = redis.Redis(port=port)
        with suppress(redis.ConnectionError):
            client.shutdown(nosave=True)
        client.close()
        wait_for(lambda: "redis.away" in (folder / "work.log").read_text())
        assert not answers(f"http://127.0.0.1:{deployment['USHER_PORT']}/readyz")
        again = embedded.start(folder / "valkey", port)
        try:
            wait_for(lambda: answers(f"http://127.0.0.1:{deployment['USHER_PORT']}/readyz"))
            buy(whop, "bob")
            wait_for(lambda: in_room(whop, "bob", "Course 1"))
        finally:
            embedded.stop(again)


def test_sigterm_lets_a_running_job_end(folder, deployment):
    whop = deployment["whop"]
    with started("work", cwd=folder, **_env(deployment)) as worker:
        wait_for(lambda: calls(whop, "experiences.attach"))
        slow(whop, 0.1)  # a worker has a few seconds for all the calls that are left
        buy(whop, "ada")
        wait_for(lambda: calls(whop, "products.create"))
        worker.terminate()
        assert worker.wait(PATIENCE) == 0
        assert in_room(whop, "ada", "Course 1")
        lines = [json.loads(line) for line in (folder / "work.log").read_text().splitlines()]
        assert lines[-1]["event"] == "worker.stopped"
