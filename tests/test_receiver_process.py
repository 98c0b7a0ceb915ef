"""The receiver as a process: its settings, its start, its signals, its logs, what it weighs."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from deliveries import ACCOUNT, SECRET, answer, ask, delivery, get
from local_whop import PATIENCE
from ports import free_port

from webhooks.durability import Unknowable, shortcomings
from webhooks.settings import Settings, SettingsError
from worker import embedded

SERVE = """
import os, sys
from webhooks.main import PortTaken, Settings, SettingsError, serve
try:
    serve(Settings.from_env(os.environ))
except (PortTaken, SettingsError) as trouble:
    sys.exit(str(trouble))
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    rules = tmp_path / "rooms.toml"
    rules.write_text(f'account = "{ACCOUNT}"\n[rooms.lounge]\n')
    return {
        "WHOP_WEBHOOK_SECRET": SECRET,
        "REDIS_URL": "redis://127.0.0.1:6379/0",
        "USHER_RULES": str(rules),
        "USHER_PORT": str(free_port()),
    }


class Running:
    """A receiver in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.process = process
        self.port = port

    def ended(self) -> tuple[int, list[dict[str, Any]]]:
        """Wait for its end; return the exit code and the lines that it logged."""
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, [json.loads(line) for line in errors.splitlines()]


@contextlib.contextmanager
def receiving(environ: dict[str, str], command: list[str] | None = None) -> Iterator[Running]:
    port = int(environ["USHER_PORT"])
    process = subprocess.Popen(
        command or [sys.executable, "-c", SERVE],
        env={**os.environ, **environ},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        wait_until(lambda: listens(port) or process.poll() is not None)
        yield Running(process, port)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_until(done: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def test_on_sigterm_it_finishes_the_requests_that_it_holds(
    environ: dict[str, str], redis_url: str
) -> None:
    async def hold(running: Running) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        raw = delivery()
        writer.write(raw[:-20])
        await writer.drain()
        assert (await get(running.port, "/healthz")).code == 200  # so the first bytes are there
        running.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(wait_until, lambda: not listens(running.port))
        writer.write(raw[-20:])
        got = await answer(reader)
        writer.close()
        await writer.wait_closed()
        return got.code

    with receiving({**environ, "REDIS_URL": redis_url}) as running:
        assert asyncio.run(hold(running)) == 202
        code, lines = running.ended()
    assert code == 0
    assert [line["event"] for line in lines if line["event"].startswith("receiver.")] == [
        "receiver.started",
        "receiver.stopped",
    ]
    with redis.Redis.from_url(redis_url) as client:
        assert client.exists(f"usher:{ACCOUNT}:delivery:msg_1") == 1


def test_ctrl_c_ends_it_in_order(environ: dict[str, str]) -> None:
    with receiving(environ) as running:
        assert asyncio.run(get(running.port, "/healthz")).code == 200
        running.process.send_signal(signal.SIGINT)
        code, lines = running.ended()
    assert code == 0
    assert lines[-1]["event"] == "receiver.stopped"
    assert not any("Traceback" in str(line) for line in lines)


def test_uvicorns_own_command_runs_it_too(environ: dict[str, str], redis_url: str) -> None:
    command = [sys.executable, "-m", "uvicorn", "--factory", "webhooks.main:create"]
    environ["REDIS_URL"] = redis_url
    with receiving(environ, [*command, "--port", environ["USHER_PORT"]]) as running:
        assert asyncio.run(ask(running.port, delivery())).code == 202


def test_it_starts_without_redis_and_lives_on_when_it_comes(
    environ: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    environ["REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
    with receiving(environ) as running:
        assert asyncio.run(ask(running.port, delivery())).code == 503
        with embedded.running(tmp_path / "late", port, fsync="no"):
            assert asyncio.run(ask(running.port, delivery())).code == 202
        running.process.send_signal(signal.SIGTERM)
        code, lines = running.ended()
    assert code == 0
    refused = [line for line in lines if line["event"] == "webhook.refused"]
    assert [(line["answer"], line["id"]) for line in refused] == [("unavailable", "msg_1")]
    assert any(line["event"] == "redis.missed" for line in lines)


def test_it_says_how_far_redis_is_from_what_production_wants(
    environ: dict[str, str], redis_url: str
) -> None:
    with receiving({**environ, "REDIS_URL": redis_url}) as running:
        line = json.loads(next(text for text in running.process.stderr or [] if "redis." in text))
    assert (line["event"], line["level"]) == ("redis.doubted", "warning")
    assert line["found"] == {"appendfsync": "no"}
    assert line["wanted"] == {"appendfsync": "always"}


def test_a_redis_that_hides_its_settings_cannot_be_judged(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("ACL", "SETUSER", "tenant", "on", ">pw", "~*", "+@all", "-config")
    url = redis_url.replace("redis://", "redis://tenant:pw@")

    async def judge() -> None:
        async with redis.asyncio.Redis.from_url(url) as client:
            with pytest.raises(Unknowable):
                await shortcomings(client)

    asyncio.run(judge())
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("ACL", "DELUSER", "tenant")


def test_a_port_that_is_taken_is_one_clear_line(environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", int(environ["USHER_PORT"]))):
        done = subprocess.run(
            [sys.executable, "-c", SERVE],
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode != 0
    address = f"127.0.0.1:{environ['USHER_PORT']}"
    expected = f"cannot listen on {address}: Address already in use; set USHER_HOST or USHER_PORT"
    assert done.stderr.splitlines() == [expected]


def test_it_is_small_and_idle(environ: dict[str, str], redis_url: str) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("only Linux tells")
    with receiving({**environ, "REDIS_URL": redis_url}) as running:
        asyncio.run(ask(running.port, delivery()))
        status = Path(f"/proc/{running.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    assert int(found[1]) < 60 * 1024


# Settings


def test_settings_are_read_from_the_environment(environ: dict[str, str]) -> None:
    settings = Settings.from_env({**environ, "USHER_LOG": "json", "USHER_HOST": "0.0.0.0"})  # noqa: S104 - a value that people set
    assert (settings.account, settings.host, settings.log) == (ACCOUNT, "0.0.0.0", "json")  # noqa: S104 - as above
    assert settings.port == int(environ["USHER_PORT"])


def test_defaults_are_the_loopback_and_port_8000(environ: dict[str, str]) -> None:
    settings = Settings.from_env({**environ, "USHER_PORT": ""})
    assert (settings.host, settings.port, settings.log) == ("127.0.0.1", 8000, None)


def test_no_secret_shows_in_a_repr(environ: dict[str, str]) -> None:
    shown = repr(Settings.from_env({**environ, "REDIS_URL": "redis://:hunter2@localhost/0"}))
    assert SECRET not in shown
    assert "hunter2" not in shown


def test_every_mistake_is_named_at_once_in_one_line() -> None:
    wrong = {
        "WHOP_WEBHOOK_SECRET": " ",
        "USHER_RULES": "/nowhere/rooms.toml",
        "USHER_PORT": "eighty",
        "USHER_LOG": "xml",
    }
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(wrong)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "WHOP_WEBHOOK_SECRET is empty",
        "REDIS_URL is missing",
        "/nowhere/rooms.toml: No such file",
        "USHER_PORT must be",
        "USHER_LOG must be",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("WHOP_WEBHOOK_SECRET", "ws_a,,ws_b", "a webhook secret is empty"),
        ("WHOP_WEBHOOK_SECRET", "whsec_?", "is not base64"),
        ("REDIS_URL", "http://:hunter2@localhost", "is not a redis://"),
        ("REDIS_URL", "redis://localhost:hunter2", "is not a redis://"),
        ("REDIS_URL", "redis+sentinel://localhost", "is not a redis://"),
        ("USHER_PORT", "65536", "up to 65535"),
        ("USHER_PORT", "-1", "up to 65535"),
        ("USHER_PORT", "９", "up to 65535"),  # noqa: RUF001 - a digit, but not one of ours
    ],
)
def test_a_wrong_value_is_told_and_not_quoted(
    environ: dict[str, str], name: str, value: str, expected: str
) -> None:
    with pytest.raises(SettingsError, match=f"^{name}.*") as caught:
        Settings.from_env({**environ, name: value})
    assert expected in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("account = ", "it is not TOML"),
        ('account = "\xff"'.encode("latin-1"), "it is not TOML"),
        ("[rooms.lounge]", "the key account"),
        ("account = 7", "the key account"),
        ('account = " "', "the key account"),
    ],
)
def test_a_broken_rules_file_is_one_clear_line(
    environ: dict[str, str], rules: str | bytes, expected: str
) -> None:
    path = Path(environ["USHER_RULES"])
    path.write_bytes(rules if isinstance(rules, bytes) else rules.encode())
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environ)
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


# Logs

LOG = """
import logging, sys
import structlog
from webhooks import log
log.configure({style!r})
structlog.get_logger().info("job.finished", job="j1")
structlog.get_logger().debug("job.whispered")
logging.getLogger("uvicorn.error").warning("from %s", "uvicorn")
logging.getLogger("httpx").info("not this one")
def fail():
    secret = "hunter" + "2"
    raise RuntimeError("broken")
try:
    fail()
except RuntimeError:
    structlog.get_logger().exception("job.failed")
    logging.getLogger("arq").exception("also here")
"""


def logged(style: str | None) -> str:
    return subprocess.run(
        [sys.executable, "-c", LOG.format(style=style)], capture_output=True, text=True, check=True
    ).stderr


@pytest.mark.parametrize("style", ["json", None])
def test_all_logs_are_json_lines_without_the_values_of_variables(style: str | None) -> None:
    text = logged(style)
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["event"] for line in lines] == [
        "job.finished",
        "from uvicorn",
        "job.failed",
        "also here",
    ]
    assert [line["level"] for line in lines] == ["info", "warning", "error", "error"]
    assert lines[0]["job"] == "j1"
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert all("RuntimeError: broken" in line["exception"] for line in lines[2:])
    assert "hunter2" not in text


def test_the_console_shows_the_same_for_people() -> None:
    text = logged("console")
    for part in ("job.finished", "job=j1", "from uvicorn", "RuntimeError: broken"):
        assert part in re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "hunter2" not in text
    assert "not this one" not in text
