"""`usher up`: everything on one machine, started and stopped together.

An embedded Valkey, a local Whop, the receiver and a worker, each a process of its own. With a key
and a secret of the real Whop in the environment there is no local one.
"""

import contextlib
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from worker import embedded, rules

READY_WITHIN: Final = 20.0
STOPPED_WITHIN: Final = 25.0
"""Longer than the receiver takes for the requests that it holds, and a worker for its jobs."""

HIGHEST_PORT: Final = 65535
LOCAL_KEY: Final = "apik_local"


class UpError(Exception):
    """Usher could not be started; the message is one line that says why and what to do."""


def up(
    environ: Mapping[str, str], folder: Path, whop_port: int, say: Callable[[str], None]
) -> None:
    """Start everything, wait for Ctrl-C or SIGTERM, and stop everything.

    Args:
        environ: the environment; what the processes need is added to a copy of it.
        folder: where the data is kept between two starts.
        whop_port: where the local Whop listens.
        say: prints a line for the person who started it.

    Raises:
        UpError: something is in the way; nothing is left running.
        RulesError: the rules file cannot be used.
        EmbeddedError: the embedded server did not start.
    """
    real = _real_whop(environ)
    path = Path(environ.get("USHER_RULES") or "rooms.toml")
    rules.load(path)
    host, port = environ.get("USHER_HOST") or "127.0.0.1", _port(environ)
    signal.signal(signal.SIGTERM, _interrupt)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_alone(folder))
        _free(host, port, "USHER_PORT")
        if not real:
            _free("127.0.0.1", whop_port, "--whop-port")
        redis_port = _redis_port(folder / "valkey-port")
        redis_url = stack.enter_context(embedded.running(folder / "valkey", redis_port))
        receiver = f"http://{host}:{port}"
        env = {**environ, "REDIS_URL": redis_url, "PYTHONUNBUFFERED": "1"}
        children: dict[str, subprocess.Popen[bytes]] = {}
        if not real:
            env |= _local(f"http://127.0.0.1:{whop_port}")
            command = _sandbox(whop_port, f"{receiver}/webhooks/whop", folder / "whop.json")
            children["the local Whop"] = stack.enter_context(_child(command, env))
            _until_answers(f"http://127.0.0.1:{whop_port}/sandbox/state", children)
        children["the receiver"] = stack.enter_context(_child(["receive"], env))
        _until_answers(f"{receiver}/readyz", children)
        children["the worker"] = stack.enter_context(_child(["work"], env))
        _greet(
            say,
            receiver=receiver,
            redis_url=redis_url,
            folder=folder,
            path=path,
            whop_port=None if real else whop_port,
        )
        _watch(children)


def _real_whop(environ: Mapping[str, str]) -> bool:
    """Say whether to talk to the real Whop: with both variables yes, with neither no."""
    names = ("WHOP_API_KEY", "WHOP_WEBHOOK_SECRET")
    there = [name for name in names if environ.get(name)]
    if len(there) == 1:
        lacking = next(name for name in names if name not in there)
        raise UpError(
            f"{there[0]} is set and {lacking} is not: set both to use the real Whop, "
            "or neither to use a local one"
        )
    return bool(there)


def _port(environ: Mapping[str, str]) -> int:
    text = environ.get("USHER_PORT") or "8000"
    if not (text.isascii() and text.isdigit() and int(text) <= HIGHEST_PORT):
        raise UpError(f"USHER_PORT must be a number up to {HIGHEST_PORT}, not {text!r}")
    return int(text)


def _local(api: str) -> dict[str, str]:
    """Return what the processes need to know of the local Whop; its secret is new each time."""
    return {
        "WHOP_API_URL": f"{api}/api/v1",
        "WHOP_API_KEY": LOCAL_KEY,
        "WHOP_WEBHOOK_SECRET": f"ws_{secrets.token_hex(32)}",
    }


def _sandbox(port: int, webhook: str, data: Path) -> list[str]:
    """Return the arguments of `usher sandbox`."""
    return ["sandbox", "--port", str(port), "--webhook", webhook, "--data", str(data)]


def _free(host: str, port: int, name: str) -> None:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise UpError(
            f"cannot listen on {host}:{port} ({os.strerror(error.errno or 0)}); "
            f"choose another port with {name}"
        ) from error


def _redis_port(note: Path) -> int:
    """Return the port of the last start where it is free: what was pasted into a shell stays good.

    Where it is not, or was never noted, another is, and is noted for the next start.
    """
    text = note.read_text(encoding="utf-8", errors="replace").strip() if note.exists() else ""
    if text.isascii() and text.isdigit() and 0 < int(text) <= HIGHEST_PORT:
        with contextlib.suppress(OSError):
            socket.create_server(("127.0.0.1", int(text))).close()
            return int(text)
    port = embedded.free_port()
    note.write_text(f"{port}\n")
    return port


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the data folder, so that two do not write into it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UpError(
                f"another `usher up` runs with the data in {folder}; stop it first"
            ) from error
        yield


@contextlib.contextmanager
def _child(arguments: list[str], env: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run one of Usher's commands in a session of its own: Ctrl-C reaches it through us."""
    command = [sys.executable, "-m", "worker.cli.main", *arguments]
    process = subprocess.Popen(  # noqa: S603 - our own command
        command,
        env=dict(env),
        start_new_session=True,
        preexec_fn=embedded.end_with_parent,  # noqa: PLW1509 - it calls nothing but prctl
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_answers(url: str, children: Mapping[str, "subprocess.Popen[bytes]"]) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while True:
        _all_alive(children)
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 - our own loopback URL
            return
        if time.monotonic() > deadline:
            raise UpError(f"{url} did not answer within {READY_WITHIN:.0f} seconds; see above")
        time.sleep(0.05)


def _all_alive(children: Mapping[str, "subprocess.Popen[bytes]"]) -> None:
    for name, process in children.items():
        if process.poll() is not None:
            raise UpError(f"{name} ended by itself (exit code {process.returncode}); see above")


def _watch(children: Mapping[str, "subprocess.Popen[bytes]"]) -> None:
    """Wait for Ctrl-C or SIGTERM."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(0.3)
            _all_alive(children)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _greet(
    say: Callable[[str], None],
    *,
    receiver: str,
    redis_url: str,
    folder: Path,
    path: Path,
    whop_port: int | None,
) -> None:
    usher = Path(sys.argv[0]).name if Path(sys.argv[0]).name != "cli.py" else "usher"
    with contextlib.suppress(ValueError):
        usher = str(Path(sys.argv[0]).resolve().relative_to(Path.cwd()))
    say("")
    say("Usher is up.")
    say(f"  rooms      {path}")
    say(f"  receiver   {receiver}/webhooks/whop   (also /healthz, /readyz, /metrics)")
    if whop_port is None:
        say("  Whop       the real one, with your WHOP_API_KEY")
    else:
        say(f"  Whop       a local one: http://127.0.0.1:{whop_port}   <- open this in a browser")
    say(f"  Valkey     {redis_url}   (data in {folder})")
    say("")
    say("Try next, in another terminal:")
    if whop_port is not None:
        product = rules.load(path).rooms[0].products[0]
        at = "" if whop_port == 4000 else f" --whop http://127.0.0.1:{whop_port}"  # noqa: PLR2004 - the default
        say(f"  {usher} sandbox buy {product} --user ada{at}")
        whop = f"WHOP_API_URL=http://127.0.0.1:{whop_port}/api/v1 WHOP_API_KEY={LOCAL_KEY}"
        say(f"  export REDIS_URL={redis_url} {whop}")
    else:
        say("  point a webhook of your account at this receiver's public URL + /webhooks/whop")
        say(f"  export REDIS_URL={redis_url}")
    say(f"  {usher} rooms")
    say(f"  {usher} check {path}")
    say("")
    say("Ctrl-C stops all of it; the data stays.")
    say("")
