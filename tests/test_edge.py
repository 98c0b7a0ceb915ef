"""How a command fails: in words where it was foreseen, and else as a fault of Usher's."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner, Result
from ports import free_port
from test_processes import RULES

from worker import embedded
from worker.admin.reach import trouble
from worker.cli import main as cli
from worker.commands.edge import FAULT

PREFIX = "usher:biz_Usher000000001:"


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Iterator[str]:
    """Give out a server whose configuration a test may spoil; it is emptied for each."""
    with embedded.running(tmp_path_factory.mktemp("own"), free_port(), fsync="no") as url:
        yield url


@pytest.fixture
def spoilt(own) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own) as client:
        client.flushall()
        yield client
        for name in ("requirepass", "maxmemory"):
            client.config_set(name, "" if name == "requirepass" else "0")
        client.replicaof("NO", "ONE")


def run(folder: Path, *arguments: str, **env: str) -> Result:
    (folder / "rooms.toml").write_text(RULES)
    environ = {"USHER_RULES": str(folder / "rooms.toml"), "USHER_DEBUG": "", **env}
    return CliRunner(env=environ).invoke(cli.main, list(arguments))


def test_a_redis_that_is_not_there_is_named(tmp_path):
    for url in ("redis://127.0.0.1:1", "redis://nowhere.invalid", f"unix://{tmp_path}/none"):
        got = run(tmp_path, "rooms", REDIS_URL=url)
        assert (got.exit_code, got.output.splitlines()) == (1, [got.output.strip()])
        assert "Redis does not answer at REDIS_URL: " in got.output


def test_a_redis_that_is_there_and_refuses_is_told_apart(own, spoilt, tmp_path):
    spoilt.config_set("requirepass", "other")
    assert "refuses the user or password" in run(tmp_path, "rooms", REDIS_URL=own).output
    wrong = own.replace("//", "//:no@")
    assert "refuses the user or password" in run(tmp_path, "rooms", REDIS_URL=wrong).output
    spoilt.config_set("requirepass", "")
    far = f"{own.rpartition('/')[0]}/99"
    assert "DB index is out of range" in run(tmp_path, "rooms", REDIS_URL=far).output


def test_an_order_that_redis_does_not_take_is_not_said_to_be_done(own, spoilt, tmp_path):
    spoilt.sadd(f"{PREFIX}rooms", "lounge")
    spoilt.set(f"{PREFIX}room:lounge", '{"products": [], "experience": "exp_1"}')
    spoilt.config_set("maxmemory", "1")
    got = run(tmp_path, "lock", "lounge", REDIS_URL=own)
    assert (got.exit_code, "Redis is full" in got.output) == (1, True), got.output
    spoilt.config_set("maxmemory", "0")
    spoilt.replicaof("127.0.0.1", "1")
    spoilt.config_set("replica-serve-stale-data", "yes")
    got = run(tmp_path, "lock", "lounge", REDIS_URL=own)
    assert (got.exit_code, "must lead to the primary" in got.output) == (1, True), got.output


@pytest.mark.parametrize("command", [["rooms"], ["explain", "user_x"], ["plan"], ["dead"]])
def test_what_nobody_foresaw_is_a_fault_of_ours_with_a_way_to_report_it(
    own, spoilt, tmp_path, command
):
    for kind in ("rooms", "member:user_x", "dead", "holders"):
        spoilt.set(f"{PREFIX}{kind}", "no hash, and no JSON")
    got = run(tmp_path, *command, REDIS_URL=own)
    assert got.exit_code == FAULT, got.output
    assert got.output.startswith("Error: this is a fault of Usher's, and not of yours: ")
    assert "worker/" in got.output
    assert "usher --version" in got.output
    assert "USHER_DEBUG=1" in got.output
    assert "Traceback" not in got.output
    assert "Redis does not answer" not in got.output
    loud = run(tmp_path, *command, REDIS_URL=own, USHER_DEBUG="1").output
    assert "Traceback" in loud
    assert loud.endswith(got.output)


@pytest.mark.usefixtures("spoilt")
def test_what_somebody_typed_wrongly_is_no_fault_of_ours(own, tmp_path):
    for wrong in (
        ["rooms", "--no"],
        ["explain", "user_x", "attic"],
        ["dead", "list", "--older", "soon"],
        ["deliveries", "list", "--since", "2026-13-01"],
        ["dead", "show", "member:nobody"],
        ["forget", "ada"],
        ["lock", "attic"],
        ["brake", "show", "attic"],
        ["plan", "--room", "attic"],
        ["survey", "attic"],
        ["check", "nowhere.toml"],
    ):
        got = run(tmp_path, *wrong, REDIS_URL=own)
        assert got.exit_code in (1, 2), (wrong, got.output)
        assert "fault of Usher's" not in got.output


def test_an_address_that_is_none_is_not_repeated(tmp_path):
    for url in ("http://:hunter2@x", "redis://x:hunter2", "redis+sentinel://:hunter2@x:1"):
        for command in (["rooms"], ["plan"], ["lock", "lounge"]):
            got = run(tmp_path, *command, REDIS_URL=url)
            assert got.exit_code == 1
            assert "REDIS_URL is not a redis://" in got.output
            assert "hunter2" not in got.output


def test_errors_that_only_look_like_an_absence_are_none():
    for bug in (OSError("no space"), TimeoutError("ours"), ValueError("x"), KeyError("x")):
        assert trouble(bug) is None
    assert trouble(redis.ResponseError("WRONGTYPE Operation against a key")) is None
    assert trouble(redis.TimeoutError("x")) == "Redis does not answer at REDIS_URL: x"


NAMED = ("LOGNAME", "USER", "LNAME", "COVERAGE")
"""What names a person, and what has a process write where nobody may."""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody in particular")
def test_who_has_no_name_in_a_container_is_asked_for_one():
    code = "import os, pwd; from worker.commands.edge import person; os.setuid(54321); person(None)"
    bare = {k: v for k, v in os.environ.items() if not k.startswith(NAMED)}
    got = subprocess.run(
        [sys.executable, "-c", code], env=bare, capture_output=True, text=True, check=False
    )
    assert got.stderr.strip().endswith("say who you are with --by")
